//! What a test of DejaGnu expects its program to print: the comments of its source that hold
//! `{ dg-output "REGEX" }`, one after the other, somewhere in the output.

use regex_lite::Regex;

/// The expression, or `None` for a test that expects nothing of the output.
///
/// # Errors
///
/// A directive that is not understood, which must not count as one that is not there.
pub fn output(source: &str) -> Result<Option<Regex>, String> {
    let mut pattern = String::new();
    for (number, line) in source.lines().enumerate() {
        let Some((_, directive)) = line.split_once("{ dg-output ") else {
            match line.contains("dg-output") {
                true => return Err(format!("line {}: {line}", number + 1)),
                false => continue,
            }
        };
        let string = quoted(directive.trim_start())
            .ok_or_else(|| format!("line {}: no string: {line}", number + 1))?;
        pattern += &string;
    }
    if pattern.is_empty() {
        return Ok(None);
    }
    // As libffi.exp does.
    let pattern = pattern.replace('\n', "\r?\n");
    Regex::new(&pattern).map(Some).map_err(|e| format!("{pattern}: {e}"))
}

/// The string of Tcl that `text` begins with.
fn quoted(text: &str) -> Option<String> {
    let mut string = String::new();
    let mut chars = text.strip_prefix('"')?.chars();
    loop {
        match chars.next()? {
            '"' => return Some(string),
            '\\' => string.push(match chars.next()? {
                'n' => '\n',
                't' => '\t',
                other => other,
            }),
            other => string.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joins_the_directives() {
        let source = "/* { dg-do run } */\n\
                      /* { dg-output \"1 2 3 4\" { xfail x } } */\n\
                      \t/* { dg-output \"\\nres: 1.0 \\\\(a\\\\)\" } */\n";
        let regex = output(source).unwrap().unwrap();
        assert!(regex.is_match("noise\n1 2 3 4\nres: 1.0 (a)\n"));
        assert!(regex.is_match("1 2 3 4\r\nres: 1.0 (a)"));
        assert!(!regex.is_match("1 2 3 4 res: 1.0 (a)"));
        assert!(!regex.is_match(""));
        assert!(output("/* { dg-do run } */").unwrap().is_none());
    }

    #[test]
    fn what_it_cannot_read_is_an_error() {
        for bad in ["/* { dg-output 1 } */", "/* dg-output \"1\" */", "/* { dg-output \"( } */"] {
            assert!(output(bad).is_err(), "{bad}");
        }
        assert!(output("/* { dg-output \"(\" } */").is_err());
    }
}
