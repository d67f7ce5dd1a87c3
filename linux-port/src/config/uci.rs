//! UCI text: `/etc/config` files and what `uci export` prints.
//!
//! Implements the grammar of libuci's file back end: `package`, `config`, `option` and `list` (and
//! their one-letter forms), comments, single and double quotes, quoted values over several lines,
//! pieces joined without space (`'it'\''s'`), a backslash before any character outside single
//! quotes, and a backslash at the end of a line. Stricter than libuci where that helps: several
//! commands on one line (`;`), several packages, NUL bytes and lines over [`MAX_LINE`] bytes are
//! refused. What an option means is not decided here.

use core::ops::Deref;

use zeroize::Zeroizing;

use crate::sorted::SortedMap;

/// Longest accepted line, in bytes.
pub const MAX_LINE: usize = 16 * 1024;

/// How often the reader returns to the line that a fault began on.
const MAX_RETURNS: usize = 16;

/// A word of the text: borrowed where it stands there as it is, else joined from its pieces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Text<'a> {
    /// As it stands in the text.
    Borrowed(&'a str),
    /// Joined; wiped when dropped, since values may be keys.
    Joined(Zeroizing<String>),
}

impl Deref for Text<'_> {
    type Target = str;
    fn deref(&self) -> &str {
        match self {
            Text::Borrowed(text) => text,
            Text::Joined(text) => text,
        }
    }
}

/// A `config` section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section<'a> {
    /// Its type.
    pub kind: Text<'a>,
    /// Its name; `None`: anonymous.
    pub name: Option<Text<'a>>,
    /// Line of its `config`, from 1.
    pub line: usize,
    /// Its options, in the order of the text.
    pub entries: Vec<Entry<'a>>,
}

/// An `option` or one `list` element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Whether it was written as `list`.
    pub list: bool,
    /// Its name.
    pub name: Text<'a>,
    /// Its value; empty when there was none, which to UCI is the same.
    pub value: Text<'a>,
    /// Line of its `option` or `list`, from 1.
    pub line: usize,
}

/// Something libuci, or we, cannot accept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Line, from 1.
    pub line: usize,
    /// What is wrong and what would be right. Never holds a value.
    pub message: String,
}

impl Fault {
    fn new(line: usize, message: impl Into<String>) -> Self {
        Self { line, message: message.into() }
    }
}

/// Reads the whole `text`.
///
/// # Errors
/// Every fault found.
pub fn parse(text: &str) -> Result<Vec<Section<'_>>, Vec<Fault>> {
    let (sections, faults) = read(text);
    if faults.is_empty() { Ok(sections) } else { Err(faults) }
}

/// Reads what can be read of `text`, and finds every fault in it. The reader goes on at the next
/// line after one.
#[must_use]
pub fn read(text: &str) -> (Vec<Section<'_>>, Vec<Fault>) {
    let unreadable = check_lines(text);
    if !unreadable.is_empty() {
        return (Vec::new(), unreadable);
    }
    let mut reader = Reader { scanner: Scanner { text, at: 0, line: 1 }, ..Reader::default() };
    while let Some((line, keyword)) = reader.scanner.keyword() {
        let start = reader.scanner.at;
        if let Err(fault) = reader.command(line, keyword) {
            reader.faults.push(fault);
            // A quote without its end may have swallowed what follows: that is read as it stands.
            if reader.scanner.line > line && reader.faults.len() <= MAX_RETURNS {
                (reader.scanner.at, reader.scanner.line) = (start, line);
            }
            reader.scanner.skip_line();
        }
    }
    (reader.sections, reader.faults)
}

/// Faults that leave nothing worth reading.
fn check_lines(text: &str) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (line, content) in (1..).zip(text.split('\n')) {
        if content.contains('\0') {
            faults.push(Fault::new(line, "NUL byte; this is not UCI text"));
        }
        if content.len() > MAX_LINE {
            let message =
                format!("line of {} bytes; at most {MAX_LINE} are accepted", content.len());
            faults.push(Fault::new(line, message));
        }
    }
    faults
}

/// What was read so far.
#[derive(Default)]
struct Reader<'a> {
    scanner: Scanner<'a>,
    package: Option<Text<'a>>,
    sections: Vec<Section<'a>>,
    /// Position of the first section of each name.
    names: SortedMap<String, usize>,
    faults: Vec<Fault>,
}

impl<'a> Reader<'a> {
    fn command(&mut self, line: usize, keyword: &str) -> Result<(), Fault> {
        match keyword {
            "package" | "p" => self.package(line),
            "config" | "c" => self.config(line),
            "option" | "o" => self.entry(line, false),
            "list" | "l" => self.entry(line, true),
            _ => Err(Fault::new(
                line,
                "unknown command; a line begins with 'config', 'option', 'list', 'package' or '#'",
            )),
        }
    }

    fn package(&mut self, line: usize) -> Result<(), Fault> {
        let name = self.required(line, "package without a name; write package network")?;
        if !name.bytes().all(|b| is_name_byte(b) || b == b'-') {
            return Err(bad_name(line, "package name"));
        }
        self.scanner.end_of_command(line)?;
        if self.package.as_ref().is_some_and(|first| **first != *name) {
            let message = "second package; give one only, as 'uci export network' does";
            return Err(Fault::new(line, message));
        }
        self.package = Some(name);
        Ok(())
    }

    fn config(&mut self, line: usize) -> Result<(), Fault> {
        // The options that follow belong to this section, whatever is wrong with it.
        let at = self.sections.len();
        let kind = Text::Borrowed("");
        self.sections.push(Section { kind, name: None, line, entries: Vec::new() });
        let kind = self.required(line, "config without a type; write config interface 'vpn0'")?;
        if let Some(section) = self.sections.get_mut(at) {
            section.kind = kind.clone();
        }
        if !kind.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Fault::new(line, "invalid character in the section type"));
        }
        let name = self.scanner.word()?.filter(|name| !name.is_empty());
        self.scanner.end_of_command(line)?;
        if let Some(name) = &name {
            if !name.bytes().all(is_name_byte) {
                return Err(bad_name(line, "section name"));
            }
            let first = self.names.get(&**name).and_then(|at| self.sections.get(*at));
            if let Some(first) = first
                && *first.kind != *kind
            {
                let message = format!(
                    "section '{}' of type '{}' has the name of the section of type '{}' on line \
                     {}; give it another name",
                    &**name, &*kind, &*first.kind, first.line
                );
                return Err(Fault::new(line, message));
            }
            if first.is_none() {
                self.names.insert(name.to_string(), at);
            }
        }
        if let Some(section) = self.sections.get_mut(at) {
            section.name = name;
        }
        Ok(())
    }

    fn entry(&mut self, line: usize, list: bool) -> Result<(), Fault> {
        let name = self.required(line, "option without a name; write option mtu '1400'")?;
        if !name.bytes().all(is_name_byte) {
            return Err(bad_name(line, "option name"));
        }
        let value = self.scanner.word()?.unwrap_or(Text::Borrowed(""));
        self.scanner.end_of_command(line)?;
        let section = self.sections.last_mut().ok_or_else(|| {
            Fault::new(line, "option before the first section; begin with config interface 'vpn0'")
        })?;
        section.entries.push(Entry { list, name, value, line });
        Ok(())
    }

    fn required(&mut self, line: usize, otherwise: &str) -> Result<Text<'a>, Fault> {
        let word = self.scanner.word()?.filter(|word| !word.is_empty());
        word.ok_or_else(|| Fault::new(line, otherwise))
    }
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn bad_name(line: usize, what: &str) -> Fault {
    Fault::new(line, format!("invalid character in the {what}; use A-Z, a-z, 0-9 and _ only"))
}

/// The words of the text, one after the other.
#[derive(Default)]
struct Scanner<'a> {
    text: &'a str,
    /// Position in bytes, always at the border of a character.
    at: usize,
    line: usize,
}

impl<'a> Scanner<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Takes what stands before the first byte that `stop` is true for.
    fn take_until(&mut self, stop: impl Fn(u8) -> bool) -> &'a str {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let len = rest.bytes().position(stop).unwrap_or(rest.len());
        let taken = rest.get(..len).unwrap_or_default();
        self.at += len;
        self.line += taken.bytes().filter(|b| *b == b'\n').count();
        taken
    }

    fn skip_line(&mut self) {
        self.take_until(|b| b == b'\n');
    }

    /// The next command's line and first word.
    fn keyword(&mut self) -> Option<(usize, &'a str)> {
        loop {
            self.take_until(|b| !is_space(b));
            match self.peek()? {
                b'#' => self.skip_line(),
                _ => return Some((self.line, self.take_until(is_space))),
            }
        }
    }

    /// The next word of this command; `None` at its end.
    fn word(&mut self) -> Result<Option<Text<'a>>, Fault> {
        self.take_until(|b| b == b'\n' || !is_space(b));
        if self.peek().is_none_or(|b| b == b'\n' || b == b'#') {
            return Ok(None);
        }
        let mut pieces = Vec::new();
        while let Some(byte) = self.peek() {
            match byte {
                b'\'' => self.single_quoted(&mut pieces)?,
                b'"' => self.double_quoted(&mut pieces)?,
                b'\\' => {
                    self.escaped(&mut pieces);
                    if pieces.is_empty() && self.peek().is_none_or(is_space) {
                        let message =
                            "backslash at the end of a line and nothing after it; remove it";
                        return Err(Fault::new(self.line, message));
                    }
                }
                b';' => {
                    let message =
                        "';' outside quotes; write one command on a line and quote values";
                    return Err(Fault::new(self.line, message));
                }
                b'#' => break,
                _ if is_space(byte) => break,
                _ => pieces.push(self.take_until(|b| is_space(b) || b"'\"\\;#".contains(&b))),
            }
        }
        Ok(Some(join(&pieces)))
    }

    fn single_quoted(&mut self, pieces: &mut Vec<&'a str>) -> Result<(), Fault> {
        let opened = self.line;
        self.at += 1;
        pieces.push(self.take_until(|b| b == b'\''));
        if self.peek().is_none() {
            return Err(Fault::new(opened, "single quote without its end; close it with '"));
        }
        self.at += 1;
        Ok(())
    }

    fn double_quoted(&mut self, pieces: &mut Vec<&'a str>) -> Result<(), Fault> {
        let opened = self.line;
        self.at += 1;
        loop {
            pieces.push(self.take_until(|b| b == b'"' || b == b'\\'));
            match self.peek() {
                None => {
                    let message = "double quote without its end; close it with \"";
                    return Err(Fault::new(opened, message));
                }
                Some(b'\\') => self.escaped(pieces),
                Some(_) => {
                    self.at += 1;
                    return Ok(());
                }
            }
        }
    }

    /// A backslash: the character after it stands for itself; a line end after it is no line end.
    fn escaped(&mut self, pieces: &mut Vec<&'a str>) {
        self.at += 1;
        let rest = self.text.get(self.at..).unwrap_or_default();
        if let Some(len) = ["\n", "\r\n"].iter().find(|end| rest.starts_with(**end)) {
            self.at += len.len();
            self.line += 1;
        } else if let Some(c) = rest.chars().next() {
            pieces.extend(rest.get(..c.len_utf8()));
            self.at += c.len_utf8();
        }
    }

    fn end_of_command(&mut self, line: usize) -> Result<(), Fault> {
        match self.word()? {
            None => Ok(()),
            Some(_) => {
                Err(Fault::new(line, "too many words; put quotes around a value with spaces"))
            }
        }
    }
}

/// isspace(3) in the C locale, which libuci uses.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

fn join<'a>(pieces: &[&'a str]) -> Text<'a> {
    let mut filled = pieces.iter().filter(|piece| !piece.is_empty());
    match (filled.next(), filled.next()) {
        (None, _) => Text::Borrowed(""),
        (Some(only), None) => Text::Borrowed(only),
        _ => {
            // Sized at once: growing would leave copies of a key behind.
            let mut joined = String::with_capacity(pieces.iter().map(|piece| piece.len()).sum());
            joined.extend(pieces.iter().copied());
            Text::Joined(Zeroizing::new(joined))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of the text's only section, by name.
    fn values(options: &str) -> Vec<(String, String)> {
        let text = format!("config t\n{options}");
        let sections = parse(&text).unwrap();
        assert_eq!(sections.len(), 1);
        sections[0].entries.iter().map(|e| (e.name.to_string(), e.value.to_string())).collect()
    }

    fn value(written: &str) -> String {
        values(&format!("option x {written}"))[0].1.clone()
    }

    fn faults(text: &str) -> Vec<(usize, String)> {
        parse(text).unwrap_err().into_iter().map(|f| (f.line, f.message)).collect()
    }

    #[test]
    fn what_uci_export_prints() {
        let text = "package network\n\nconfig interface 'vpn0'\n\toption proto 'simplevpn'\n\
                    \tlist addresses '10.0.0.1/24'\n\tlist addresses '10.0.1.1/24'\n\n\
                    config simplevpn_vpn0\n\toption description 'it'\\''s'\n\n";
        let sections = parse(text).unwrap();
        assert_eq!(sections.len(), 2);
        assert_eq!(&*sections[0].kind, "interface");
        assert_eq!(sections[0].name.as_deref(), Some("vpn0"));
        assert_eq!((sections[0].line, sections[1].line), (3, 8));
        let lines: Vec<_> = sections[0].entries.iter().map(|e| (e.list, e.line)).collect();
        assert_eq!(lines, [(false, 4), (true, 5), (true, 6)]);
        assert_eq!(sections[1].name, None);
        assert_eq!(&*sections[1].entries[0].value, "it's");
    }

    #[test]
    fn quotes_and_escapes_as_libuci_reads_them() {
        let table = [
            ("plain", "plain"),
            ("'single'", "single"),
            ("\"double\"", "double"),
            ("'it'\\''s'", "it's"),
            ("a'b'\"c\"d", "abcd"),
            ("\"say \\\"hi\\\"\"", "say \"hi\""),
            ("'no \\escape'", "no \\escape"),
            ("un\\ quoted", "un quoted"),
            ("back\\\\slash", "back\\slash"),
            ("cut#comment", "cut"),
            ("'kept#here'", "kept#here"),
            ("'semi;colon'", "semi;colon"),
            ("semi\\;colon", "semi;colon"),
            ("'two\nlines'", "two\nlines"),
            ("\"two\nlines\"", "two\nlines"),
            ("\"joined\\\nlines\"", "joinedlines"),
            ("joined\\\r\nlines", "joinedlines"),
            ("  'spaced'  \r", "spaced"),
            ("\\ä", "ä"),
            ("", ""),
            ("''", ""),
            ("end\\", "end"),
        ];
        for (written, meant) in table {
            assert_eq!(value(written), meant, "{written:?}");
        }
    }

    #[test]
    fn a_value_is_borrowed_where_it_can_be() {
        let sections = parse("config t\noption a 'abc'\noption b 'a'bc").unwrap();
        assert!(matches!(sections[0].entries[0].value, Text::Borrowed("abc")));
        assert!(matches!(sections[0].entries[1].value, Text::Joined(_)));
    }

    #[test]
    fn lines_are_counted_through_quotes_and_continuations() {
        let text = "# one\nconfig t\noption a 'x\ny'\noption b x\\\ny\nlist c z";
        let sections = parse(text).unwrap();
        let lines: Vec<_> = sections[0].entries.iter().map(|e| e.line).collect();
        assert_eq!(lines, [3, 5, 7]);
    }

    #[test]
    fn abbreviations_comments_and_blanks() {
        let text = "p network\nc t 'n' # comment\n\n \t# more\no a 1\nl b 2\n";
        let sections = parse(text).unwrap();
        assert_eq!(sections[0].name.as_deref(), Some("n"));
        assert_eq!(sections[0].entries.len(), 2);
    }

    #[test]
    fn what_is_refused() {
        let table: [(&str, usize, &str); 18] = [
            ("config t\noption a 'x", 2, "single quote without its end; close it with '"),
            ("config t\noption a \"x\n\n", 2, "double quote without its end; close it with \""),
            (
                "config t\noption a-b x",
                2,
                "invalid character in the option name; use A-Z, a-z, 0-9 and _ only",
            ),
            (
                "config t 'a.b'",
                1,
                "invalid character in the section name; use A-Z, a-z, 0-9 and _ only",
            ),
            (
                "config t 'ä'",
                1,
                "invalid character in the section name; use A-Z, a-z, 0-9 and _ only",
            ),
            (
                "package a/b",
                1,
                "invalid character in the package name; use A-Z, a-z, 0-9 and _ only",
            ),
            ("config 'a b'", 1, "invalid character in the section type"),
            ("config", 1, "config without a type; write config interface 'vpn0'"),
            ("config ''", 1, "config without a type; write config interface 'vpn0'"),
            ("package", 1, "package without a name; write package network"),
            ("config t\noption", 2, "option without a name; write option mtu '1400'"),
            (
                "option a b",
                1,
                "option before the first section; begin with config interface 'vpn0'",
            ),
            ("config t\noption a b c", 2, "too many words; put quotes around a value with spaces"),
            (
                "config t\noption a b; option c d",
                2,
                "';' outside quotes; write one command on a line and quote values",
            ),
            (
                "config t\noption a b \\\n \n",
                3,
                "backslash at the end of a line and nothing after it; remove it",
            ),
            (
                "interface t",
                1,
                "unknown command; a line begins with 'config', 'option', 'list', 'package' or '#'",
            ),
            (
                "package a\npackage b",
                2,
                "second package; give one only, as 'uci export network' does",
            ),
            (
                "config t 'n'\nconfig u 'n'",
                2,
                "section 'n' of type 'u' has the name of the section of type 't' on line 1; give it another name",
            ),
        ];
        for (text, line, message) in table {
            assert_eq!(faults(text), [(line, message.to_owned())], "{text:?}");
        }
    }

    #[test]
    fn hostile_bytes_are_refused() {
        assert_eq!(faults("config t\n\0"), [(2, "NUL byte; this is not UCI text".to_owned())]);
        let long = format!("config t\noption a '{}'", "x".repeat(MAX_LINE));
        assert_eq!(faults(&long)[0].0, 2);
    }

    #[test]
    fn reading_goes_on_after_a_fault() {
        let lines: Vec<_> = faults("nonsense\nconfig t\noption a! b\noption c d e")
            .into_iter()
            .map(|f| f.0)
            .collect();
        assert_eq!(lines, [1, 3, 4]);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,400}") {
            let _ = parse(&text);
        }

        #[test]
        fn text_that_is_nearly_uci_is_read_or_refused(
            words in proptest::collection::vec(
                proptest::sample::select(vec!["config", "option", "list", "package", " ", "\n", "\t",
                    "'", "\"", "\\", "#", ";", "\r", "name", "ä", "''"]), 0..60)
        ) {
            let text: String = words.concat();
            if let Err(faults) = parse(&text) {
                let lines = text.split('\n').count();
                proptest::prop_assert!(faults.iter().all(|f| (1..=lines).contains(&f.line)));
            }
        }

        #[test]
        fn an_exported_value_is_read_back(value in "[^\\x00]{0,80}") {
            let text = format!("config t\n\toption x '{}'\n", value.replace('\'', "'\\''"));
            let sections = parse(&text).unwrap();
            proptest::prop_assert_eq!(&*sections[0].entries[0].value, value.as_str());
        }
    }
}
