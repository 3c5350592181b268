//! Text to words.

/// What is wrong with a program, and on which line of its file.
#[derive(Debug, PartialEq, Eq)]
pub struct Error {
    pub line: usize,
    pub what: String,
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

impl std::error::Error for Error {}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    Name(String),
    Number(i64),
    /// Of one or two characters.
    Sign(&'static str),
    End,
}

/// A word and where it is.
#[derive(Clone, Debug)]
pub struct Token {
    pub word: Word,
    pub line: usize,
    /// First byte, and one past the last.
    pub at: (usize, usize),
}

/// The longer ones first.
const SIGNS: [&str; 21] = [
    "==", "!=", "<=", ">=", "&&", "||", "<", ">", "=", "+", "-", "*", "/", "%", "!", "(", ")", "{",
    "}", ",", ";",
];

pub fn tokens(text: &str) -> Result<Vec<Token>, Error> {
    let mut tokens = Vec::new();
    let (mut at, mut line) = (0, 1);
    while let Some(first) = text[at..].chars().next() {
        let rest = &text[at..];
        let error = |what: String| Error { line, what };
        let end_of =
            |inside: fn(char) -> bool| at + rest.find(|c: char| !inside(c)).unwrap_or(rest.len());
        if first == '#' {
            at += rest.find('\n').unwrap_or(rest.len());
            continue;
        }
        if first.is_whitespace() {
            line += usize::from(first == '\n');
            at += first.len_utf8();
            continue;
        }
        let (word, end) = if first.is_ascii_alphabetic() {
            let end = end_of(|c| c.is_ascii_alphanumeric() || c == '_');
            (Word::Name(text[at..end].into()), end)
        } else if first.is_ascii_digit() {
            let end = end_of(|c| c.is_ascii_alphanumeric());
            let digits = &text[at..end];
            let number = digits.parse().map_err(|why| error(format!("{digits}: {why}")))?;
            (Word::Number(number), end)
        } else {
            let sign = SIGNS.into_iter().find(|sign| rest.starts_with(sign));
            let sign = sign.ok_or_else(|| error(format!("{first:?} has no meaning")))?;
            (Word::Sign(sign), at + sign.len())
        };
        tokens.push(Token { word, line, at: (at, end) });
        at = end;
    }
    tokens.push(Token { word: Word::End, line, at: (at, at) });
    Ok(tokens)
}
