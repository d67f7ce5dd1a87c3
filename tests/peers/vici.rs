//! What strongSwan tells of itself: the text of `swanctl --raw`.
//!
//! `name {key=value list=[one two] name {…}}`, all on one line. Values have no spaces in them that
//! matter here.

/// A named section.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Section {
    /// Its name.
    pub name: String,
    values: Vec<(String, String)>,
    /// The sections inside, in order.
    pub sections: Vec<Section>,
}

impl Section {
    /// Reads what swanctl printed: all its messages, as sections of one without a name.
    #[must_use]
    pub fn parse(text: &str) -> Section {
        let spaced = text.replace('{', " { ").replace('}', " } ");
        let mut words = spaced.split_whitespace();
        Section::of_words(String::new(), &mut words)
    }

    fn of_words<'a>(name: String, words: &mut impl Iterator<Item = &'a str>) -> Section {
        let mut section = Section { name, ..Section::default() };
        let mut last = "";
        while let Some(word) = words.next() {
            match word {
                "{" => section.sections.push(Section::of_words(last.into(), words)),
                "}" => break,
                _ => match word.split_once('=') {
                    Some((key, value)) => section.values.push((key.into(), value.into())),
                    // The rest of a list or of a value with a space in it, or a section's name.
                    None => last = word,
                },
            }
        }
        section
    }

    /// The value of this name, or an empty text.
    #[must_use]
    pub fn value(&self, name: &str) -> &str {
        let found = self.values.iter().find(|(key, _)| key == name);
        found.map_or("", |(_, value)| value)
    }

    /// The section of this name, or an empty one.
    #[must_use]
    pub fn section(&self, name: &str) -> Section {
        let found = self.sections.iter().find(|section| section.name == name);
        found.cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::Section;

    #[test]
    fn sections_and_values_are_found() {
        let text = "list-sa event {lab {state=ESTABLISHED local-vips=[10.7.0.1 10.7.0.2] \
                    child-sas {net-1 {state=INSTALLED local-ts=[10.2.0.0/24]} net-2 {state=DELETED}}}}\n\
                    list-sas reply {}";
        let said = Section::parse(text);
        assert_eq!(said.sections.len(), 2);
        let lab = said.section("event").section("lab");
        assert_eq!(lab.value("state"), "ESTABLISHED");
        assert_eq!(lab.value("none"), "");
        let children = lab.section("child-sas").sections;
        let states: Vec<_> = children.iter().map(|child| child.value("state")).collect();
        assert_eq!(states, ["INSTALLED", "DELETED"]);
    }
}
