// SPDX-License-Identifier: Apache-2.0
//! Man pages from the documentation's own Markdown, as far as it uses it: headings, paragraphs,
//! lists, tables, indented text, `code`, **bold**, *emphasis* and links.

use std::fmt::Write as _;

/// A page: the text below its first heading.
pub fn page(name: &str, section: u8, title: &str, markdown: &str) -> String {
    let mut page = format!(
        ".TH {} {section} \"\" \"slurm-disagg {}\"\n.SH NAME\n{} \\- {}\n.SH DESCRIPTION\n",
        name.to_uppercase(),
        env!("CARGO_PKG_VERSION"),
        inline(name),
        inline(title)
    );
    let mut is_verbatim = false;
    let (mut row, mut heads) = (0, Vec::new());
    for line in markdown.lines().filter(|line| !line.starts_with("# ")) {
        let verbatim = line.strip_prefix("    ").filter(|_| is_verbatim || line.trim() != "");
        if verbatim.is_some() != is_verbatim && !(is_verbatim && line.is_empty()) {
            page += if is_verbatim { ".fi\n.RE\n" } else { ".PP\n.RS 4\n.nf\n" };
            is_verbatim = !is_verbatim;
        }
        row = if line.starts_with('|') { row + 1 } else { 0 };
        if row == 1 {
            heads = cells(line);
        }
        if let Some(text) = verbatim {
            let _ = writeln!(page, "{}", escaped(text));
        } else if let Some(heading) = line.strip_prefix("## ") {
            let _ = writeln!(page, ".SH {}", inline(&heading.to_uppercase()));
        } else if let Some(heading) = line.strip_prefix("### ") {
            let _ = writeln!(page, ".SS {}", inline(heading));
        } else if let Some(item) = line.strip_prefix("- ") {
            let _ = writeln!(page, ".IP \\(bu 2\n{}", inline(item));
        } else if row > 2 {
            // The head of a table, its rule, then rows: the first cell names what the others say.
            let cells = cells(line);
            let _ = writeln!(page, ".TP\n{}", inline(&cells[0]));
            for (head, cell) in
                heads.iter().zip(&cells).skip(1).filter(|(_, cell)| !cell.is_empty())
            {
                let head = if cells.len() > 2 { format!("{head}: ") } else { String::new() };
                let _ = writeln!(page, "{}{}\n.br", inline(&head), inline(cell));
            }
        } else if line.trim().is_empty() {
            page += if is_verbatim { "\n" } else { ".PP\n" };
        } else if row == 0 {
            let _ = writeln!(page, "{}", inline(line.trim()));
        }
    }
    if is_verbatim {
        page += ".fi\n.RE\n";
    }
    page
}

/// The cells of a table's row; `\\|` is a character of its cell.
fn cells(row: &str) -> Vec<String> {
    let row = row.trim_matches('|').replace("\\|", "\u{1}");
    row.split('|').map(|cell| cell.trim().replace('\u{1}', "|")).collect()
}

/// A text as it is.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

/// A text with its marks: bold for code and what is bold, the underlined font for emphasis.
fn inline(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['`', '*', '[']) {
        out += &escaped(&rest[..at]);
        rest = &rest[at..];
        let marked = [("`", 'B'), ("**", 'B'), ("*", 'I')].into_iter().find_map(|(mark, font)| {
            let (inner, after) = rest.strip_prefix(mark)?.split_once(mark)?;
            Some((inner, after, font)).filter(|(inner, ..)| !inner.is_empty())
        });
        let link = || {
            let (shown, after) = rest.strip_prefix('[')?.split_once("](")?;
            Some((shown, after.split_once(')')?.1))
        };
        if let Some((inner, after, font)) = marked {
            let _ = write!(out, "\\f{font}{}\\fR", escaped(&inner.replace('`', "")));
            rest = after;
        } else if let Some((shown, after)) = link() {
            out += &inline(shown);
            rest = after;
        } else {
            out += &rest[..1];
            rest = &rest[1..];
        }
    }
    out + &escaped(rest)
}
