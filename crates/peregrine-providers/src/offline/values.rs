//! Values that stand in texts: numbers, quotations, paths, addresses, dates, names, and `key: value` pairs.
//!
//! Everything is found in place and handed back as it stands; nothing is made up.

use super::units::Kind;

/// A number and where it stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Number {
    pub(super) value: f64,
    pub(super) start: usize,
    /// It was written without a point.
    pub(super) is_whole: bool,
}

/// The numbers of a text: `7`, `-3`, `1,234`, `1_000`, `0.5`. What is glued to letters (`v2`) or has two points
/// (`1.2.3`) is no number.
pub(super) fn numbers(text: &str) -> Vec<Number> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        if !bytes[at].is_ascii_digit() {
            at += 1;
            continue;
        }
        let start = at;
        let mut digits = String::new();
        let mut points = 0;
        while at < bytes.len() {
            let digit_follows = bytes.get(at + 1).is_some_and(u8::is_ascii_digit);
            match bytes[at] {
                digit @ b'0'..=b'9' => digits.push(char::from(digit)),
                b'.' if digit_follows => {
                    points += 1;
                    digits.push('.');
                }
                b',' if is_group(&bytes[at + 1..]) => {}
                b'_' if digit_follows => {}
                _ => break,
            }
            at += 1;
        }
        let before = text[..start].chars().next_back();
        let after = text[at..].chars().next();
        let glued = before.is_some_and(|c| c.is_alphabetic() || c == '_')
            || after.is_some_and(|c| {
                c.is_ascii_alphabetic()
                    && !text[at..].starts_with(['%', 'k', 'm', 's', 'x', 'G', 'M', 'K', 'h'])
            });
        if glued || points > 1 {
            continue;
        }
        let minus =
            text[..start].ends_with('-') && !text[..start - 1].ends_with(|c: char| c.is_alphanumeric());
        if let Ok(value) = digits.parse::<f64>() {
            found.push(Number {
                value: if minus { -value } else { value },
                start,
                is_whole: points == 0,
            });
        }
    }
    found
}

/// Three digits and no fourth: the group behind a thousands comma.
fn is_group(after: &[u8]) -> bool {
    after.len() >= 3
        && after[..3].iter().all(u8::is_ascii_digit)
        && !after.get(3).is_some_and(u8::is_ascii_digit)
}

/// What stands in quotation marks or back-ticks, in order.
pub(super) fn quoted(text: &str) -> Vec<&str> {
    const PAIRS: [(char, char); 6] = [
        ('"', '"'),
        ('`', '`'),
        ('“', '”'),
        ('„', '“'),
        ('«', '»'),
        ('\'', '\''),
    ];
    let mut found = Vec::new();
    let mut rest = text;
    let mut before = ' ';
    while let Some(open) = rest.chars().next() {
        let inner = &rest[open.len_utf8()..];
        let pair = PAIRS.iter().find(|(mark, _)| *mark == open);
        // An apostrophe within a word opens nothing.
        let close = pair.filter(|_| !before.is_alphanumeric()).and_then(|(_, close)| {
            let end = inner.find(*close)?;
            let behind = inner[end + close.len_utf8()..].chars().next();
            (!(*close == '\'' && behind.is_some_and(char::is_alphanumeric))).then_some((end, *close))
        });
        match close {
            Some((end, mark)) => {
                if !inner[..end].trim().is_empty() {
                    found.push(&inner[..end]);
                }
                rest = &inner[end + mark.len_utf8()..];
                before = mark;
            }
            None => {
                rest = inner;
                before = open;
            }
        }
        // A mark that is never closed would make every later one search to the end.
        if found.len() >= 64 {
            break;
        }
    }
    found
}

/// The words of a text without the marks around them.
fn bare_words(text: &str) -> impl Iterator<Item = &str> {
    text.split_whitespace().map(|word| {
        let word = word.trim_matches(|c: char| {
            matches!(
                c,
                '"' | '\''
                    | '`'
                    | '('
                    | ')'
                    | '['
                    | ']'
                    | '<'
                    | '>'
                    | ','
                    | ';'
                    | ':'
                    | '!'
                    | '?'
                    | '*'
                    | '“'
                    | '”'
            )
        });
        word.trim_end_matches('.')
    })
}

/// The words that are paths of files, in order.
pub(super) fn paths(text: &str) -> impl Iterator<Item = &str> {
    bare_words(text).filter(|word| is_path(word))
}

/// The words that are addresses of mail.
pub(super) fn emails(text: &str) -> impl Iterator<Item = &str> {
    bare_words(text).filter(|word| {
        word.split_once('@').is_some_and(|(name, host)| {
            !name.is_empty()
                && host
                    .split_once('.')
                    .is_some_and(|(first, last)| !first.is_empty() && !last.is_empty())
                && !host.contains('@')
        })
    })
}

/// The words that are web addresses.
pub(super) fn urls(text: &str) -> impl Iterator<Item = &str> {
    bare_words(text).filter_map(|word| {
        let start = word.find("https://").or_else(|| word.find("http://"))?;
        let url = &word[start..];
        (url.len() > 8).then(|| url.trim_end_matches(['/', '.', ')']))
    })
}

/// Dates of the form `2026-11-21`.
pub(super) fn dates(text: &str) -> impl Iterator<Item = &str> {
    let is_digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    bare_words(text).filter_map(move |word| {
        let date = word.get(..10)?;
        let bytes = date.as_bytes();
        let shape = bytes[4] == b'-'
            && bytes[7] == b'-'
            && is_digits(&date[..4])
            && is_digits(&date[5..7])
            && is_digits(&date[8..]);
        let month: u8 = date.get(5..7)?.parse().ok()?;
        let day: u8 = date.get(8..)?.parse().ok()?;
        (shape && (1..=12).contains(&month) && (1..=31).contains(&day)).then_some(date)
    })
}

/// Extensions by which a bare word is taken for a file's name.
#[rustfmt::skip]
const EXTENSIONS: &[&str] = &[
    "adoc", "bash", "c", "cc", "cfg", "conf", "cpp", "cs", "css", "csv", "env", "go", "h", "hpp", "htm",
    "html", "ini", "ipynb", "java", "js", "json", "jsonl", "jsx", "kt", "lock", "log", "markdown", "md",
    "php", "proto", "ps1", "py", "rb", "rs", "rst", "sh", "sql", "swift", "tex", "toml", "ts", "tsv", "tsx",
    "txt", "xml", "yaml", "yml",
];

/// Whether a word is the path of a file: it has a known extension, or slashes and no scheme.
pub(super) fn is_path(word: &str) -> bool {
    if word.is_empty() || word.len() > 512 || word.contains("://") || word.contains(['\n', '\0']) {
        return false;
    }
    has_extension(word)
        || (word.contains('/')
            && word.split('/').all(|segment| {
                segment
                    .chars()
                    .all(|c| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '+' | '@'))
            })
            && word.chars().any(char::is_alphabetic)
            && !word.starts_with("//"))
}

/// Whether a name ends in the extension of a file that people or programs read.
pub(super) fn has_extension(name: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(stem, extension)| {
        stem.ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | ')'))
            && EXTENSIONS
                .iter()
                .any(|known| extension.eq_ignore_ascii_case(known))
    })
}

/// What is to be expected of a file by its name: texts for people first, data last.
pub(super) fn prior(path: &str) -> u8 {
    let name = path.rsplit('/').next().unwrap_or(path).to_ascii_lowercase();
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    match extension {
        _ if name.starts_with("readme") => 4,
        "md" | "markdown" | "txt" | "rst" | "adoc" => 3,
        "toml" | "yaml" | "yml" | "ini" | "cfg" | "html" => 2,
        "lock" | "svg" | "map" | "json" | "jsonl" | "csv" | "tsv" | "log" => 0,
        _ if has_extension(&name) || extension.is_empty() => 1,
        _ => 0,
    }
}

/// Names: runs of capitalised words. A capital at the start of a sentence counts only if another follows.
pub(super) fn names(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut run: Option<(usize, usize, usize)> = None;
    let mut at_start = true;
    let mut run_at_start = false;
    let mut flush = |run: &mut Option<(usize, usize, usize)>, at_start: bool| {
        if let Some((start, end, words)) = run.take()
            && (words > 1 || !at_start)
        {
            found.push(&text[start..end]);
        }
    };
    let mut at = 0;
    for piece in text.split_inclusive(char::is_whitespace) {
        let word = piece.trim_end();
        let core = word.trim_matches(|c: char| !c.is_alphanumeric());
        let start = at + word.find(core).unwrap_or(0);
        let is_name = core.starts_with(char::is_uppercase) && !core.contains(['/', '(', ')', '=']);
        if is_name {
            match &mut run {
                Some((_, end, words)) => {
                    *end = start + core.len();
                    *words += 1;
                }
                None => {
                    run = Some((start, start + core.len(), 1));
                    run_at_start = at_start;
                }
            }
        } else {
            flush(&mut run, run_at_start);
        }
        let ends = word.ends_with(['.', '!', '?', ':', ',', ';', ')'])
            || word.ends_with("'s")
            || word.ends_with("’s");
        if ends {
            flush(&mut run, run_at_start);
        }
        at_start = word.ends_with(['.', '!', '?']) || (at_start && core.is_empty());
        at += piece.len();
    }
    flush(&mut run, run_at_start);
    found
        .into_iter()
        .map(|name| name.trim_end_matches("'s").trim_end_matches("’s"))
        .collect()
}

/// A key and its value, as they stand in a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pair<'a> {
    pub(super) key: &'a str,
    pub(super) value: &'a str,
}

/// The `key: value` and `key = value` pairs of a unit, and the cells of a table row under their headings.
pub(super) fn pairs<'a>(kind: Kind, unit: &'a str, header: Option<&'a str>) -> Vec<Pair<'a>> {
    let mut found = Vec::new();
    if matches!(kind, Kind::Row | Kind::HeaderRow) {
        let cells: Vec<&str> = cells(unit).collect();
        if let Some(header) = header {
            found.extend(
                self::cells(header)
                    .zip(&cells)
                    .map(|(key, value)| Pair { key, value }),
            );
        }
        if let [key, value, ..] = cells[..] {
            found.push(Pair { key, value });
        }
    } else {
        for line in unit.lines() {
            if let Some(pair) = pair(line) {
                found.push(pair);
            }
        }
    }
    found.retain(|pair| !pair.key.is_empty() && !pair.value.is_empty());
    found
}

/// The cells of a table row.
pub(super) fn cells(row: &str) -> impl Iterator<Item = &str> {
    row.trim()
        .trim_start_matches('|')
        .trim_end_matches('|')
        .split('|')
        .map(plain)
}

fn pair(line: &str) -> Option<Pair<'_>> {
    let line = line
        .trim()
        .trim_start_matches(['-', '*', '+', '#', '>', '/', '!', ' ']);
    let colon = line.find(": ").or_else(|| line.strip_suffix(':').map(str::len));
    let bold = line.find(":** ");
    let split = [
        colon,
        bold,
        line.find(" = "),
        line.find('=').filter(|_| !line.contains(' ')),
    ];
    let at = split.into_iter().flatten().min()?;
    let (key, rest) = line.split_at(at);
    let value = rest.trim_start_matches([':', '=', '*', ' ']);
    let key = plain(key);
    // A whole clause before a colon is no key.
    (key.split_whitespace().count() <= 6).then(|| Pair {
        key,
        value: plain(value),
    })
}

/// Without emphasis, quotation marks, and a comma or semicolon at the end.
pub(super) fn plain(text: &str) -> &str {
    text.trim()
        .trim_end_matches([',', ';'])
        .trim_matches(|c: char| matches!(c, '*' | '`' | '"' | '\'' | '“' | '”' | '_') || c.is_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_told_from_what_looks_like_them() {
        let found = |text: &str| numbers(text).iter().map(|n| n.value).collect::<Vec<_>>();
        assert_eq!(
            found("7 of 1,234, -3.5 and 1_000 (50%)"),
            [7.0, 1234.0, -3.5, 1000.0, 50.0]
        );
        assert_eq!(found("v2, 1.2.3, x86, 5-6"), [5.0, 6.0]);
        assert_eq!(found("in 1999. Then 12,34"), [1999.0, 12.0, 34.0]);
        assert!(numbers("3.0")[0].value == 3.0 && !numbers("3.0")[0].is_whole);
        assert_eq!(found(&"9".repeat(400)), [f64::INFINITY]);
    }

    #[test]
    fn quotations_paths_and_addresses() {
        assert_eq!(quoted("say \"a b\" and 'c' but don't `d`"), ["a b", "c", "d"]);
        assert_eq!(quoted("\"open"), Vec::<&str>::new());
        let found: Vec<&str> =
            paths("See README.md, (docs/x.rs) or a/b; not e.g. 1/2 https://x.y/z.md Cargo.toml.").collect();
        assert_eq!(found, ["README.md", "docs/x.rs", "a/b", "Cargo.toml"]);
        assert_eq!(
            emails("to <ada@example.org>, not @x").collect::<Vec<_>>(),
            ["ada@example.org"]
        );
        assert_eq!(
            urls("(see https://example.org/a).").collect::<Vec<_>>(),
            ["https://example.org/a"]
        );
        assert_eq!(
            dates("on 2026-11-21T10:00 or 2026-13-01").collect::<Vec<_>>(),
            ["2026-11-21"]
        );
        assert_eq!(
            names("Ada Lovelace met Charles in Paris. The end"),
            ["Ada Lovelace", "Charles", "Paris"]
        );
        assert_eq!(names("What is the weather in New York?"), ["New York"]);
    }

    #[test]
    fn pairs_of_prose_settings_and_tables() {
        let found = |kind, unit, header| {
            pairs(kind, unit, header)
                .iter()
                .map(|p| (p.key, p.value))
                .collect::<Vec<_>>()
        };
        assert_eq!(found(Kind::Sentence, "License: MIT", None), [("License", "MIT")]);
        assert_eq!(found(Kind::Item, "- **Owner:** `ada`", None), [("Owner", "ada")]);
        assert_eq!(
            found(Kind::Line, "rust-version = \"1.95\"", None),
            [("rust-version", "1.95")]
        );
        assert_eq!(found(Kind::Line, "\"name\": \"x\",", None), [("name", "x")]);
        assert_eq!(found(Kind::Line, "KEY=v", None), [("KEY", "v")]);
        assert_eq!(
            found(Kind::Row, "| a | 1 |", Some("| name | n |")),
            [("name", "a"), ("n", "1"), ("a", "1")]
        );
        assert_eq!(found(Kind::Sentence, "No pair here", None), []);
    }
}
