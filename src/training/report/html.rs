//! The report as one page that needs nothing from elsewhere.

use super::charts::colour;
use super::sections::{Block, Figure, Section};
use super::tables::{Cell, Table};

const STYLE: &str = include_str!("style.css");

/// Letters of a cell that is broken into lines.
const LONG: usize = 40;

/// The page.
pub(super) fn page(sections: &[Section]) -> String {
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>REG4Rec: quality</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<h1>REG4Rec: quality</h1>\n<nav>\n"
    );
    for (at, section) in sections.iter().enumerate() {
        page.push_str(&format!("<a href=\"#part-{at}\">{}</a>\n", escape(&section.title)));
    }
    page.push_str("</nav>\n");
    for (at, section) in sections.iter().enumerate() {
        let (title, about) = (escape(&section.title), escape(&section.about));
        page.push_str(&format!("<section id=\"part-{at}\">\n<h2>{title}</h2>\n<p>{about}</p>\n"));
        section.blocks.iter().for_each(|block| page.push_str(&self::block(block)));
        page.push_str("</section>\n");
    }
    page.push_str("</body>\n</html>\n");
    page
}

/// `text` where it can stand as content or as an attribute's value.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

fn block(block: &Block) -> String {
    match block {
        Block::Table(table) => {
            format!("<h3>{}</h3>\n<p>{}</p>\n{}", escape(&table.title), escape(&table.note), rows(table))
        }
        Block::Folded(table) => folded(&table.title, table),
        Block::Figure(figure) => self::figure(figure),
    }
}

fn figure(figure: &Figure) -> String {
    let name =
        |(slot, name): &(usize, String)| format!("<li><i class=\"{}\"></i>{}</li>\n", colour(*slot), escape(name));
    let legend: String = figure.legend.iter().map(name).collect();
    let legend = if legend.is_empty() { legend } else { format!("<ul class=\"legend\">\n{legend}</ul>\n") };
    format!(
        "<figure>\n<h3>{}</h3>\n<figcaption>{}</figcaption>\n{legend}<div class=\"charts{}\">\n{}</div>\n{}</figure>\n",
        escape(&figure.title),
        escape(&figure.caption),
        if figure.wide { " wide" } else { "" },
        figure.charts.concat(),
        folded("The same as a table", &figure.table),
    )
}

fn folded(summary: &str, table: &Table) -> String {
    let (summary, note) = (escape(summary), escape(&table.note));
    format!("<details>\n<summary>{summary}</summary>\n<p>{note}</p>\n{}</details>\n", rows(table))
}

fn rows(table: &Table) -> String {
    let class = |words: bool| if words { " class=\"words\"" } else { "" };
    let head: String = table
        .columns
        .iter()
        .map(|column| format!("<th scope=\"col\"{}>{}</th>", class(column.words), escape(&column.name)))
        .collect();
    let mut rows = String::new();
    for row in &table.rows {
        let cells = row.iter().zip(&table.columns);
        let kind = |cell: &Cell, words| match words {
            true if cell.text.chars().count() > LONG => " class=\"words long\"",
            _ => class(words),
        };
        let cells: String =
            cells.map(|(cell, column)| format!("<td{}>{}</td>", kind(cell, column.words), inside(cell))).collect();
        rows.push_str(&format!("<tr>{cells}</tr>\n"));
    }
    format!("<div class=\"scroll\"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table></div>\n")
}

fn inside(cell: &Cell) -> String {
    let text = escape(&cell.text);
    let text = if cell.best { format!("<b>{text}</b>") } else { text };
    match &cell.detail {
        Some(detail) => format!("{text}<small>{}</small>", escape(detail)),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_become_markup() {
        assert_eq!(escape("<a href=\"x\">'&'</a>"), "&lt;a href=&quot;x&quot;&gt;&#39;&amp;&#39;&lt;/a&gt;");
        let cell = Cell { text: "<script>".to_owned(), detail: Some("<i>".to_owned()), best: true };
        assert_eq!(inside(&cell), "<b>&lt;script&gt;</b><small>&lt;i&gt;</small>");
    }

    #[test]
    fn the_page_asks_for_nothing_from_elsewhere() {
        let page = page(&[]);
        for forbidden in ["http:", "https:", "<script", "<link", "@import", "url("] {
            assert!(!page.contains(forbidden), "{forbidden}");
        }
    }
}
