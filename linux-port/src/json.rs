//! Writes JSON (RFC 8259): just what `simplevpn show --json` and messages to netifd need.

use core::fmt::{Display, Write};

/// A JSON text that grows; commas and quotes are its business.
#[derive(Debug, Default)]
pub(crate) struct Json {
    text: String,
}

impl Json {
    pub(crate) fn finish(self) -> String {
        self.text
    }

    /// An object, whose members `write` adds with [`Self::name`] and a value.
    pub(crate) fn object(&mut self, write: impl FnOnce(&mut Json)) {
        self.comma();
        self.text.push('{');
        write(self);
        self.text.push('}');
    }

    /// An array, whose values `write` adds.
    pub(crate) fn array(&mut self, write: impl FnOnce(&mut Json)) {
        self.comma();
        self.text.push('[');
        write(self);
        self.text.push(']');
    }

    /// The name of the member whose value comes next.
    pub(crate) fn name(&mut self, name: &str) -> &mut Json {
        self.string(name);
        self.text.push(':');
        self
    }

    pub(crate) fn number(&mut self, number: impl Into<u64>) {
        self.comma();
        let _ = write!(self.text, "{}", number.into());
    }

    pub(crate) fn boolean(&mut self, value: bool) {
        self.comma();
        self.text.push_str(if value { "true" } else { "false" });
    }

    pub(crate) fn null(&mut self) {
        self.comma();
        self.text.push_str("null");
    }

    pub(crate) fn string(&mut self, value: impl Display) {
        self.comma();
        self.text.push('"');
        let _ = write!(Escaped(&mut self.text), "{value}");
        self.text.push('"');
    }

    fn comma(&mut self) {
        if !matches!(self.text.as_bytes().last(), None | Some(b'{' | b'[' | b':')) {
            self.text.push(',');
        }
    }
}

struct Escaped<'a>(&'a mut String);

impl Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        for char in text.chars() {
            match char {
                '"' | '\\' => {
                    self.0.push('\\');
                    self.0.push(char);
                }
                char if char.is_control() => write!(self.0, "\\u{:04x}", u32::from(char))?,
                char => self.0.push(char),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_values_have_their_commas() {
        let mut json = Json::default();
        json.object(|json| {
            json.name("a").number(1u32);
            json.name("b").array(|json| {
                json.string("x");
                json.null();
                json.object(|_| {});
                json.array(|_| {});
            });
            json.name("c").boolean(false);
            json.name("d").number(u64::MAX);
        });
        let wanted = r#"{"a":1,"b":["x",null,{},[]],"c":false,"d":18446744073709551615}"#;
        assert_eq!(json.finish(), wanted);
    }

    #[test]
    fn strings_are_escaped() {
        let mut json = Json::default();
        json.array(|json| {
            json.string("a\"b\\c\n\u{1}ü:");
            json.string("{");
            json.string("");
        });
        assert_eq!(json.finish(), r#"["a\"b\\c\u000a\u0001ü:","{",""]"#);
    }
}
