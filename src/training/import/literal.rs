//! Python literals, as the 2014 Amazon metadata is written: dicts, lists, strings, numbers, True, False, None.

use serde_json::{Map, Number, Value};

/// Nesting beyond this is refused, so that no line can exhaust the stack.
const DEEPEST: usize = 32;

/// Reads one literal that fills the whole text. Errors say what was expected at which byte.
pub(super) fn parse(text: &str) -> Result<Value, String> {
    let mut reader = Reader { text, at: 0 };
    let value = reader.value(0)?;
    reader.blanks();
    if reader.at < text.len() { Err(reader.expected("the end")) } else { Ok(value) }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let found = self.peek()?;
        self.at += found.len_utf8();
        Some(found)
    }

    fn take(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.at += wanted.len_utf8();
        }
        found
    }

    fn blanks(&mut self) {
        while self.peek().is_some_and(char::is_whitespace) {
            self.next();
        }
    }

    fn expected(&self, what: &str) -> String {
        match self.peek() {
            Some(found) => format!("{found:?} at byte {}, expected {what}", self.at),
            None => format!("ends at byte {}, expected {what}", self.at),
        }
    }

    fn value(&mut self, depth: usize) -> Result<Value, String> {
        if depth > DEEPEST {
            return Err(format!("nested deeper than {DEEPEST} at byte {}", self.at));
        }
        self.blanks();
        match self.peek() {
            Some('{') => self.dict(depth),
            Some('[') => self.list(']', depth),
            Some('(') => self.list(')', depth),
            Some('\'' | '"') => self.string().map(Value::String),
            Some('u' | 'U') if self.text[self.at + 1..].starts_with(['\'', '"']) => {
                self.next();
                self.string().map(Value::String)
            }
            _ => self.word(),
        }
    }

    fn dict(&mut self, depth: usize) -> Result<Value, String> {
        self.next();
        let mut entries = Map::new();
        loop {
            self.blanks();
            if self.take('}') {
                return Ok(Value::Object(entries));
            }
            let key = match self.value(depth + 1)? {
                Value::String(key) => key,
                other => other.to_string(),
            };
            self.blanks();
            if !self.take(':') {
                return Err(self.expected("':'"));
            }
            let value = self.value(depth + 1)?;
            entries.insert(key, value);
            self.blanks();
            if !self.take(',') && self.peek() != Some('}') {
                return Err(self.expected("',' or '}'"));
            }
        }
    }

    fn list(&mut self, end: char, depth: usize) -> Result<Value, String> {
        self.next();
        let mut entries = Vec::new();
        loop {
            self.blanks();
            if self.take(end) {
                return Ok(Value::Array(entries));
            }
            entries.push(self.value(depth + 1)?);
            self.blanks();
            if !self.take(',') && self.peek() != Some(end) {
                return Err(self.expected(&format!("',' or {end:?}")));
            }
        }
    }

    fn string(&mut self) -> Result<String, String> {
        let quote = self.next();
        let mut content = String::new();
        loop {
            match self.next() {
                None => return Err(self.expected("the end of a string")),
                found if found == quote => return Ok(content),
                Some('\\') => self.escape(&mut content)?,
                Some(other) => content.push(other),
            }
        }
    }

    fn escape(&mut self, content: &mut String) -> Result<(), String> {
        let Some(kind) = self.next() else { return Err(self.expected("an escaped character")) };
        let simple = match kind {
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            'a' => '\u{7}',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'v' => '\u{b}',
            '\\' | '\'' | '"' => kind,
            '\n' => return Ok(()),
            'x' => self.hexadecimal(2)?,
            'u' => self.hexadecimal(4)?,
            'U' => self.hexadecimal(8)?,
            other => {
                // Python keeps the backslash before a character that it does not escape.
                content.push('\\');
                other
            }
        };
        content.push(simple);
        Ok(())
    }

    fn hexadecimal(&mut self, digits: usize) -> Result<char, String> {
        let found = self.text.get(self.at..self.at + digits).and_then(|text| u32::from_str_radix(text, 16).ok());
        let Some(number) = found else { return Err(self.expected(&format!("{digits} hexadecimal digits"))) };
        self.at += digits;
        // Half of a surrogate pair stands for no character on its own.
        Ok(char::from_u32(number).unwrap_or(char::REPLACEMENT_CHARACTER))
    }

    fn word(&mut self) -> Result<Value, String> {
        let rest = &self.text[self.at..];
        let end = rest.find(|found: char| !(found.is_ascii_alphanumeric() || "+-._".contains(found)));
        let word = &rest[..end.unwrap_or(rest.len())];
        let value = match word {
            "None" => Value::Null,
            "True" => Value::Bool(true),
            "False" => Value::Bool(false),
            _ => self.number(word)?,
        };
        self.at += word.len();
        Ok(value)
    }

    fn number(&self, word: &str) -> Result<Value, String> {
        let whole = word.trim_end_matches(['L', 'l']).parse::<i64>().ok().map(Number::from);
        let number = whole.or_else(|| word.parse().ok().and_then(Number::from_f64));
        number.map(Value::Number).ok_or_else(|| self.expected("a Python literal"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_of_metadata_reads_as_its_json() {
        let line = r#"{'asin': '7806397051', 'price': 12.5, 'title': "Woman's \"Kit\"", 'salesRank': {'Beauty': 5},
            'categories': [['Beauty', u'Make\tup'], ()], 'brand': None, 'ok': True, 'n': -3L, 'uml': '\xe4\u20ac'}"#;
        let expected = json!({
            "asin": "7806397051", "price": 12.5, "title": "Woman's \"Kit\"", "salesRank": {"Beauty": 5},
            "categories": [["Beauty", "Make\tup"], []], "brand": null, "ok": true, "n": -3, "uml": "ä€"
        });
        assert_eq!(parse(line).unwrap(), expected);
    }

    #[test]
    fn what_is_no_literal_is_refused_with_its_place() {
        for (text, problem) in [
            ("{'a': 1", "ends at byte 7, expected ',' or '}'"),
            ("{'a' 1}", "'1' at byte 5, expected ':'"),
            ("'open", "ends at byte 5, expected the end of a string"),
            ("{'a': import}", "'i' at byte 6, expected a Python literal"),
            ("[1] 2", "'2' at byte 4, expected the end"),
            ("'\\xg'", "'g' at byte 3, expected 2 hexadecimal digits"),
        ] {
            assert_eq!(parse(text).unwrap_err(), problem, "{text}");
        }
        assert!(parse(&"[".repeat(100_000)).unwrap_err().starts_with("nested deeper"));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[\\[\\]{}()'\"\\\\uxU0-9a-f:, äNone.-]{0,40}") {
            let _ = parse(&text);
        }

        #[test]
        fn strings_survive_quoting(text in "\\PC{0,20}") {
            let quoted = format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"));
            prop_assert_eq!(parse(&quoted).unwrap(), Value::String(text));
        }
    }
}
