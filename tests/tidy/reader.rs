//! Tells the code of a Rust file from its comments and strings.

/// Tells code from comments and strings.
pub(crate) struct Reader<'a> {
    rest: &'a str,
    line: usize,
    pub(crate) code: String,
    pub(crate) strings: Vec<(usize, String)>,
}

impl<'a> Reader<'a> {
    pub(crate) fn read(text: &'a str) -> Self {
        let mut reader = Self {
            rest: text,
            line: 1,
            code: String::new(),
            strings: Vec::new(),
        };
        while !reader.rest.is_empty() {
            reader.step();
        }
        reader
    }

    fn step(&mut self) {
        let rest = self.rest;
        let is_name = |c: char| c.is_alphanumeric() || c == '_';
        let name = rest.len() - rest.trim_start_matches(is_name).len();
        if rest.starts_with("//") {
            self.skip(rest.find('\n').unwrap_or(rest.len()));
        } else if rest.starts_with("/*") {
            self.skip(rest.find("*/").map_or(rest.len(), |end| end + 2));
        } else if rest.starts_with('"') {
            self.string(1, end_of_string(rest), 1);
        } else if name > 0 {
            self.keep(name);
            let after = self.rest.trim_start_matches('#');
            let hashes = self.rest.len() - after.len();
            if ["r", "br", "cr"].contains(&&rest[..name]) && after.starts_with('"') {
                let close = format!("\"{}", "#".repeat(hashes));
                let open = hashes + 1;
                let body = &self.rest[open..];
                let end = body
                    .find(&close)
                    .map_or(self.rest.len(), |at| open + at + close.len());
                self.string(open, end, close.len());
            }
        } else if let Some(length) = char_literal(rest) {
            self.skip(length);
        } else {
            self.keep(rest.chars().next().map_or(0, char::len_utf8));
        }
    }

    /// Takes `length` bytes into the code.
    fn keep(&mut self, length: usize) {
        let (taken, rest) = self.rest.split_at(length);
        self.code.push_str(taken);
        self.line += taken.matches('\n').count();
        self.rest = rest;
    }

    /// Leaves `length` bytes out of the code; their lines stay.
    fn skip(&mut self, length: usize) {
        let (taken, rest) = self.rest.split_at(length);
        let lines = taken.matches('\n').count();
        self.code.extend(std::iter::repeat_n('\n', lines));
        self.line += lines;
        self.rest = rest;
    }

    fn string(&mut self, open: usize, end: usize, close: usize) {
        let content = &self.rest[open..end.saturating_sub(close).max(open)];
        self.strings.push((self.line, content.to_owned()));
        self.code.push('"');
        self.skip(end);
        self.code.push('"');
    }
}

fn end_of_string(rest: &str) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// The length of a character literal; `None` for a lifetime.
fn char_literal(rest: &str) -> Option<usize> {
    let body = rest.strip_prefix('\'')?;
    let first = body.chars().next()?;
    let length = match first {
        '\\' => 1 + body[1..].chars().next()?.len_utf8(),
        _ => first.len_utf8(),
    };
    let close = if first == '\\' {
        body[length..].find('\'')?
    } else {
        0
    };
    body[length + close..]
        .starts_with('\'')
        .then_some(length + close + 2)
}

#[test]
fn code_is_told_from_comments_and_strings() {
    let text = "a /* b\n */ \"c\\\"d\" // e\nr#\"f \" g\"# '\"' 'x' &'h i b'\\''";
    let source = Reader::read(text);
    assert_eq!(source.code, "a \n \"\" \nr\"\"   &'h i b");
    let strings = [(2, "c\\\"d".to_owned()), (3, "f \" g".to_owned())];
    assert_eq!(source.strings, strings);
}
