//! The report's tables as Markdown, figures as the numbers behind them.

use super::sections::{Block, Section};
use super::tables::{Cell, Table};

/// All sections.
pub(super) fn page(sections: &[Section]) -> String {
    let mut page = "# Quality\n".to_owned();
    for section in sections {
        page.push_str(&format!("\n## {}\n\n{}\n", escape(&section.title), escape(&section.about)));
        for block in &section.blocks {
            let (title, note, table) = match block {
                Block::Table(table) | Block::Folded(table) => (&table.title, &table.note, table),
                Block::Figure(figure) => (&figure.title, &figure.table.note, &figure.table),
            };
            page.push_str(&format!("\n### {}\n\n{}\n\n{}", escape(title), escape(note), rows(table)));
        }
    }
    page
}

fn rows(table: &Table) -> String {
    let names: Vec<String> = table.columns.iter().map(|column| escape(&column.name)).collect();
    let rules: Vec<&str> = table.columns.iter().map(|column| if column.words { "---" } else { "---:" }).collect();
    let mut text = format!("| {} |\n| {} |\n", names.join(" | "), rules.join(" | "));
    for row in &table.rows {
        let cells: Vec<String> = row.iter().map(inside).collect();
        text.push_str(&format!("| {} |\n", cells.join(" | ")));
    }
    text
}

fn inside(cell: &Cell) -> String {
    let text = escape(&cell.text);
    let text = if cell.best { format!("**{text}**") } else { text };
    match &cell.detail {
        Some(detail) => format!("{text} ({})", escape(detail)),
        None => text,
    }
}

/// `text` where it can stand in a cell or a heading and mean itself.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\\' | '|' | '*' | '_' | '<' | '[' | '`' => escaped.extend(['\\', letter]),
            '\n' | '\r' => escaped.push(' '),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_leave_its_cell() {
        assert_eq!(escape("a|b\nc*d_e<f"), "a\\|b c\\*d\\_e\\<f");
    }
}
