//! Lines, words and blocks of files of the old style.

/// Blocks in blocks that are read as such.
const DEPTH_MAX: usize = 16;

/// A statement: words, and what stands in braces behind them.
#[derive(Debug, PartialEq)]
pub(super) struct Node {
    pub(super) line: usize,
    /// Without quotes.
    pub(super) words: Vec<String>,
    pub(super) block: Option<Vec<Node>>,
}

impl Node {
    /// The first word.
    pub(super) fn key(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    /// The words behind the first.
    pub(super) fn arguments(&self) -> &[String] {
        self.words.get(1..).unwrap_or_default()
    }

    /// The word behind the first.
    pub(super) fn argument(&self) -> &str {
        self.arguments().first().map_or("", String::as_str)
    }

    /// The statements in its braces.
    pub(super) fn inside(&self) -> &[Self] {
        self.block.as_deref().unwrap_or_default()
    }

    /// For the list of what was left.
    pub(super) fn text(&self) -> String {
        let block = match &self.block {
            Some(block) if block.is_empty() => " { }",
            Some(_) => " { ... }",
            None => "",
        };
        format!("{}{block}", self.words.join(" "))
    }
}

/// Words of a line, without what follows a mark of comments. A word in double quotes may have blanks and marks.
pub(super) fn words(line: &str, comments: &[char]) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => {
                let word = word.get_or_insert_default();
                while let Some(c) = chars.next() {
                    match c {
                        '"' => break,
                        // The character behind a backslash stands for itself, but for line ends.
                        '\\' => match chars.next() {
                            Some('n') => word.push('\n'),
                            Some('r') => word.push('\r'),
                            Some('t') => word.push('\t'),
                            Some(c) => word.push(c),
                            None => word.push('\\'),
                        },
                        c => word.push(c),
                    }
                }
            }
            c if comments.contains(&c) => break,
            c if c.is_whitespace() => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// Statements with blocks in braces, one a line. What is wrong with the braces comes second, with its line.
pub(super) fn blocks(text: &str, comments: &[char]) -> (Vec<Node>, Vec<(usize, &'static str)>) {
    let mut wrong = Vec::new();
    // The statements of each open block; the last is the innermost.
    let mut open: Vec<Vec<Node>> = vec![Vec::new()];
    for (line, text) in (1..).zip(text.lines()) {
        let mut statement = Vec::new();
        for word in words(text, comments) {
            let (word, opens) = match word.strip_suffix('{') {
                Some(rest) if open.len() <= DEPTH_MAX => (rest.to_owned(), true),
                _ => (word, false),
            };
            if word == "}" {
                push(&mut open, line, &mut statement);
                if !close(&mut open) {
                    wrong.push((line, "a brace closes what none opened"));
                }
                continue;
            }
            if !word.is_empty() || !opens {
                statement.push(word);
            }
            if opens {
                push(&mut open, line, &mut statement);
                // The brace belongs to the statement before it, which may stand on the line before.
                if open.last().is_none_or(|block| block.last().is_none_or(|node| node.block.is_some())) {
                    statement.push(String::new());
                    push(&mut open, line, &mut statement);
                }
                open.push(Vec::new());
            }
        }
        push(&mut open, line, &mut statement);
    }
    while open.len() > 1 {
        close(&mut open);
        let line = open.last().and_then(|block| block.last()).map_or(1, |node| node.line);
        wrong.push((line, "its brace is not closed"));
    }
    (open.pop().unwrap_or_default(), wrong)
}

fn push(open: &mut [Vec<Node>], line: usize, statement: &mut Vec<String>) {
    if let (Some(block), false) = (open.last_mut(), statement.is_empty()) {
        block.push(Node { line, words: std::mem::take(statement), block: None });
    }
}

/// Gives the innermost block to the statement that it belongs to.
fn close(open: &mut Vec<Vec<Node>>) -> bool {
    if open.len() < 2 {
        return false;
    }
    let inner = open.pop();
    if let Some(node) = open.last_mut().and_then(|block| block.last_mut()) {
        node.block = inner;
    }
    true
}

/// `key = value`, without quotes around the value.
pub(super) fn pair(text: &str) -> Option<(&str, &str)> {
    let (key, value) = text.split_once('=')?;
    let value = value.trim();
    let inner = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value);
    Some((key.trim(), inner))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_have_quotes_and_comments() {
        assert_eq!(words("a \"b # c\\\"\"d e# f", &['#']), ["a", "b # c\"d", "e"]);
        assert_eq!(words(" ! x", &['!']), Vec::<String>::new());
        assert_eq!(words("send \"GET /\\r\\n\"", &['#']), ["send", "GET /\r\n"]);
        assert_eq!(words("\"open", &[]), ["open"]);
    }

    #[test]
    fn blocks_nest_and_their_braces_may_stand_anywhere() {
        let (nodes, wrong) = blocks("a 1 {\n b\n c {\n d }\n}\ne\n{\n f\n}\ng{\n}\n", &['#']);
        assert_eq!(wrong, []);
        let texts: Vec<String> = nodes.iter().map(Node::text).collect();
        assert_eq!(texts, ["a 1 { ... }", "e { ... }", "g { }"]);
        assert_eq!(nodes[0].inside()[1].inside()[0].words, ["d"]);
        assert_eq!(nodes[0].inside()[1].inside()[0].line, 4);
    }

    #[test]
    fn braces_that_do_not_match_are_told() {
        let (nodes, wrong) = blocks("}\na {\n b {\n", &[]);
        assert_eq!(wrong.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [1, 3, 2]);
        assert_eq!(nodes.len(), 1);
        let deep = "a {\n".repeat(100_000);
        assert_eq!(blocks(&deep, &[]).0.len(), 1);
    }
}
