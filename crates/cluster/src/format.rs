//! A file in its canonical layout: `sluice fmt`. Comments stay, and so does the order of everything.
//!
//! It works on tokens, not on values, so that nothing that was written can get lost.

use crate::finding::{Finding, tidy};
use crate::resolve::syntax_errors;
use toml_parser::Source;
use toml_parser::lexer::{Token, TokenKind};

/// Columns of a line, unless one value alone needs more.
const WIDTH: usize = 100;
/// Spaces before the items of a list with an item per line.
const INDENT: usize = 4;

/// The text in its canonical layout.
///
/// # Errors
/// The text is no TOML.
pub fn format(text: &str) -> Result<String, Vec<Finding>> {
    let errors = syntax_errors(text);
    if !errors.is_empty() {
        return Err(tidy(errors));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut tokens = Tokens { text, tokens: Source::new(text).lex().into_vec(), at: 0 };
    let mut lines = Vec::new();
    while tokens.peek() != TokenKind::Eof {
        lines.push(tokens.line());
    }
    Ok(layout(&lines))
}

/// A line, or a key with a value over several.
struct Line {
    kind: LineKind,
    text: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum LineKind {
    Blank,
    Comment,
    Header,
    Pair,
}

/// Puts blank lines where they belong: one before each header with its comments, and never two.
fn layout(lines: &[Line]) -> String {
    let mut out: Vec<&Line> = Vec::new();
    let blank = Line { kind: LineKind::Blank, text: String::new() };
    for line in lines {
        let last = out.last().map(|line| line.kind);
        match line.kind {
            LineKind::Blank if matches!(last, None | Some(LineKind::Blank)) => continue,
            LineKind::Header => {
                let comments = out.iter().rev().take_while(|line| line.kind == LineKind::Comment).count();
                let at = out.len() - comments;
                if at > 0 && out[at - 1].kind != LineKind::Blank {
                    out.insert(at, &blank);
                }
            }
            LineKind::Blank | LineKind::Comment | LineKind::Pair => {}
        }
        out.push(line);
    }
    while out.last().is_some_and(|line| line.kind == LineKind::Blank) {
        out.pop();
    }
    out.iter().map(|line| format!("{}\n", line.text)).collect()
}

/// A value.
enum Value {
    /// One that has no parts.
    Plain(String),
    /// A list or an inline table.
    Parts {
        brackets: (char, char),
        /// A list whose first item began a line of its own keeps one item per line.
        tall: bool,
        parts: Vec<Part>,
    },
}

enum Part {
    /// With its key and ` = `, in a table.
    Item(String, Value),
    /// A comment, on the line of the item before it or on its own.
    Comment { text: String, own_line: bool },
}

impl Value {
    fn has_comment(&self) -> bool {
        let Self::Parts { parts, .. } = self else { return false };
        parts.iter().any(|part| match part {
            Part::Item(_, value) => value.has_comment(),
            Part::Comment { .. } => true,
        })
    }

    /// In one line; comments have no place there.
    fn short(&self) -> String {
        match self {
            Self::Plain(text) => text.clone(),
            Self::Parts { brackets: (open, close), parts, .. } => {
                let items = parts.iter().filter_map(|part| match part {
                    Part::Item(key, value) => Some(format!("{key}{}", value.short())),
                    Part::Comment { .. } => None,
                });
                let items = items.collect::<Vec<_>>().join(", ");
                match (open, items.is_empty()) {
                    ('{', false) => format!("{{ {items} }}"),
                    _ => format!("{open}{items}{close}"),
                }
            }
        }
    }

    /// Appends it to a line that has so many columns already and is indented so far.
    fn write(&self, out: &mut String, indent: usize, columns: usize) {
        let short = self.short();
        let Self::Parts { brackets: (open, close), tall, parts } = self else {
            out.push_str(&short);
            return;
        };
        // A table has its lines only for its comments: readers of TOML 1.0 know no others.
        let fits = columns + short.chars().count() <= WIDTH || *open == '{';
        if parts.is_empty() || !self.has_comment() && fits && !tall {
            out.push_str(&short);
            return;
        }
        out.push(*open);
        let inside = indent + INDENT;
        for part in parts {
            match part {
                Part::Item(key, value) => {
                    out.push_str(&format!("\n{:inside$}{key}", ""));
                    value.write(out, inside, inside + key.chars().count() + 1);
                    out.push(',');
                }
                Part::Comment { text, own_line: true } => out.push_str(&format!("\n{:inside$}{text}", "")),
                Part::Comment { text, own_line: false } => out.push_str(&format!(" {text}")),
            }
        }
        out.push_str(&format!("\n{:indent$}{close}", ""));
    }
}

/// The tokens that are left.
struct Tokens<'a> {
    text: &'a str,
    tokens: Vec<Token>,
    at: usize,
}

impl<'a> Tokens<'a> {
    fn peek(&self) -> TokenKind {
        self.tokens.get(self.at).map_or(TokenKind::Eof, Token::kind)
    }

    /// Takes a token; its text.
    fn take(&mut self) -> &'a str {
        let span = self.tokens.get(self.at).map(Token::span);
        self.at += 1;
        span.and_then(|span| self.text.get(span.start()..span.end())).unwrap_or_default()
    }

    fn skip_blanks(&mut self) {
        while self.peek() == TokenKind::Whitespace {
            self.at += 1;
        }
    }

    /// A line with its end.
    fn line(&mut self) -> Line {
        self.skip_blanks();
        let (kind, mut text) = match self.peek() {
            TokenKind::Newline | TokenKind::Eof => (LineKind::Blank, String::new()),
            TokenKind::Comment => (LineKind::Comment, self.take().trim_end().to_owned()),
            TokenKind::LeftSquareBracket => (LineKind::Header, self.run(&[])),
            _ => (LineKind::Pair, self.pair()),
        };
        self.skip_blanks();
        if self.peek() == TokenKind::Comment {
            text.push(' ');
            text.push_str(self.take().trim_end());
        }
        if self.peek() == TokenKind::Newline {
            self.at += 1;
        }
        Line { kind, text }
    }

    /// Tokens without the blanks between them, until one of these or the end of the line.
    fn run(&mut self, until: &[TokenKind]) -> String {
        let mut text = String::new();
        loop {
            match self.peek() {
                TokenKind::Whitespace => self.at += 1,
                TokenKind::Newline | TokenKind::Comment | TokenKind::Eof => return text,
                kind if until.contains(&kind) => return text,
                _ => text.push_str(self.take()),
            }
        }
    }

    fn pair(&mut self) -> String {
        let mut text = self.key();
        let columns = text.chars().count();
        let value = self.value();
        value.write(&mut text, 0, columns);
        text
    }

    /// A key and ` = `.
    fn key(&mut self) -> String {
        let key = self.run(&[TokenKind::Equals]);
        self.at += 1;
        format!("{key} = ")
    }

    fn value(&mut self) -> Value {
        self.skip_blanks();
        match self.peek() {
            TokenKind::LeftSquareBracket => self.parts(('[', ']'), TokenKind::RightSquareBracket),
            TokenKind::LeftCurlyBracket => self.parts(('{', '}'), TokenKind::RightCurlyBracket),
            _ => Value::Plain(self.plain()),
        }
    }

    /// A value without parts. A blank within it, as between date and time, stays.
    fn plain(&mut self) -> String {
        let mut text = String::new();
        loop {
            match self.peek() {
                TokenKind::Newline
                | TokenKind::Comment
                | TokenKind::Eof
                | TokenKind::Comma
                | TokenKind::RightSquareBracket
                | TokenKind::RightCurlyBracket => return text.trim_end().to_owned(),
                _ => text.push_str(self.take()),
            }
        }
    }

    fn parts(&mut self, brackets: (char, char), end: TokenKind) -> Value {
        self.at += 1;
        self.skip_blanks();
        let tall = brackets.0 == '[' && self.peek() == TokenKind::Newline;
        let mut parts = Vec::new();
        let mut own_line = false;
        loop {
            match self.peek() {
                TokenKind::Eof => break,
                kind if kind == end => {
                    self.at += 1;
                    break;
                }
                TokenKind::Whitespace | TokenKind::Comma => self.at += 1,
                TokenKind::Newline => {
                    own_line = true;
                    self.at += 1;
                }
                TokenKind::Comment => {
                    let text = self.take().trim_end().to_owned();
                    parts.push(Part::Comment { text, own_line });
                }
                _ => {
                    let key = if end == TokenKind::RightCurlyBracket { self.key() } else { String::new() };
                    parts.push(Part::Item(key, self.value()));
                    own_line = false;
                }
            }
        }
        Value::Parts { brackets, tall, parts }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_gets_its_layout_and_keeps_its_comments() {
        let untidy = "\u{feff}# top\r\n\r\n\n[ server . \"a.b\" ]# one\naddress=\"10.0.0.1\"   #  why\n\n\n\
                      weight   =  0x10\n# about www\n[service.www]\nservers = [\n\"a\" , # first\n # second\n {server=\"b\",weight=3}\n]\n\
                      vip=[ \"192.0.2.1\",]\nstarted = 2026-01-02 03:04:05\nempty=[ ]\nnone={}\n\n";
        let tidy = "# top\n\n[server.\"a.b\"] # one\naddress = \"10.0.0.1\" #  why\n\n\
                    weight = 0x10\n\n# about www\n[service.www]\nservers = [\n    \"a\", # first\n    # second\n    { server = \"b\", weight = 3 },\n]\n\
                    vip = [\"192.0.2.1\"]\nstarted = 2026-01-02 03:04:05\nempty = []\nnone = {}\n";
        assert_eq!(format(untidy).as_deref(), Ok(tidy));
        assert_eq!(format(tidy).as_deref(), Ok(tidy));
    }

    #[test]
    fn long_lists_get_a_line_for_each_item_and_tables_do_not() {
        let names: Vec<String> = (0..20).map(|n| format!("\"web{n}\"")).collect();
        let text = format!("servers = [{}]\nt = {{ a = [{}] }}\n", names.join(","), names.join(", "));
        let tidy = format(&text).expect("TOML");
        assert!(tidy.starts_with("servers = [\n    \"web0\",\n    \"web1\",\n"), "{tidy}");
        assert!(tidy.contains("]\nt = { a = [\"web0\", \"web1\""), "{tidy}");
        assert_eq!(format(&tidy).as_deref(), Ok(tidy.as_str()));
    }

    #[test]
    fn comments_in_tables_and_strings_over_lines_stay() {
        let text = "a = { # why\n b = 1, # one\n # two\n}\ns = '''\n  x  # no comment\n'''\n";
        let tidy = "a = { # why\n    b = 1, # one\n    # two\n}\ns = '''\n  x  # no comment\n'''\n";
        assert_eq!(format(text).as_deref(), Ok(tidy));
        assert_eq!(format(tidy).as_deref(), Ok(tidy));
    }

    #[test]
    fn what_is_no_toml_is_left_alone() {
        let errors = format("a = \nb = 1\n").expect_err("no TOML");
        assert_eq!(errors.len(), 1);
    }
}
