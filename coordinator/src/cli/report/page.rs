//! A writer of HTML and SVG in which nothing reaches the page unescaped: tags and attribute names are the
//! program's own, everything else goes through [`Page::text`] or is an attribute's value.

/// A page under construction.
#[derive(Default)]
pub struct Page {
    out: String,
    open: Vec<&'static str>,
}

impl Page {
    /// What was written; open elements are closed.
    pub fn finish(mut self) -> String {
        while !self.open.is_empty() {
            self.end();
        }
        self.out
    }

    /// Begins an element.
    pub fn begin(&mut self, tag: &'static str, attributes: &[(&'static str, &str)]) {
        self.tag(tag, attributes);
        self.out.push('>');
        self.open.push(tag);
    }

    /// Ends the element that was begun last.
    pub fn end(&mut self) {
        if let Some(tag) = self.open.pop() {
            self.out.push_str("</");
            self.out.push_str(tag);
            self.out.push_str(">\n");
        }
    }

    /// An element without content, as SVG has them.
    pub fn empty(&mut self, tag: &'static str, attributes: &[(&'static str, &str)]) {
        self.tag(tag, attributes);
        self.out.push_str("/>\n");
    }

    /// An element with nothing but text in it.
    pub fn element(&mut self, tag: &'static str, text: &str) {
        self.begin(tag, &[]);
        self.text(text);
        self.end();
    }

    /// Text; whatever it is, it stays text.
    pub fn text(&mut self, text: &str) {
        for c in text.chars() {
            match c {
                '&' => self.out.push_str("&amp;"),
                '<' => self.out.push_str("&lt;"),
                '>' => self.out.push_str("&gt;"),
                '"' => self.out.push_str("&quot;"),
                '\'' => self.out.push_str("&#39;"),
                '\n' | '\t' => self.out.push(c),
                // neither control characters nor what turns the direction of the text around
                c if c.is_control() || is_bidi(c) => self.out.push('\u{fffd}'),
                c => self.out.push(c),
            }
        }
    }

    /// A table.
    pub fn table(&mut self, head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) {
        self.begin("table", &[]);
        self.begin("tr", &[]);
        head.iter().for_each(|cell| self.element("th", cell));
        self.end();
        for row in rows {
            self.begin("tr", &[]);
            row.iter().for_each(|cell| self.element("td", cell));
            self.end();
        }
        self.end();
    }

    /// The first line of a page, and its own style, which is the program's.
    pub fn document(title: &str, style: &'static str) -> Page {
        let mut page = Page::default();
        page.out.push_str("<!DOCTYPE html>\n");
        page.begin("html", &[("lang", "en")]);
        page.begin("head", &[]);
        page.empty("meta", &[("charset", "utf-8")]);
        let policy = "default-src 'none'; style-src 'unsafe-inline'";
        page.empty(
            "meta",
            &[
                ("http-equiv", "Content-Security-Policy"),
                ("content", policy),
            ],
        );
        page.element("title", title);
        page.begin("style", &[]);
        page.out.push_str(style);
        page.end();
        page.end();
        page.begin("body", &[]);
        page
    }

    fn tag(&mut self, tag: &'static str, attributes: &[(&'static str, &str)]) {
        self.out.push('<');
        self.out.push_str(tag);
        for (name, value) in attributes {
            self.out.push(' ');
            self.out.push_str(name);
            self.out.push_str("=\"");
            self.text(value);
            self.out.push('"');
        }
    }
}

/// Characters that make text read other than it stands.
fn is_bidi(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_opened_is_closed_and_text_stays_text() {
        let mut page = Page::default();
        page.begin("p", &[("title", "a\"b<")]);
        page.element("b", "<script>alert('x')</script> & \u{202e}\u{1b}[31m");
        let out = page.finish();
        let expected = "<p title=\"a&quot;b&lt;\"><b>&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; \
                        \u{fffd}\u{fffd}[31m</b>\n</p>\n";
        assert_eq!(out, expected);
    }

    proptest! {
        #[test]
        fn no_text_adds_a_tag_or_leaves_an_attribute(text in any::<String>()) {
            let mut page = Page::default();
            page.begin("p", &[("title", &text)]);
            page.text(&text);
            let out = page.finish();
            prop_assert_eq!(out.matches('<').count(), 2);
            prop_assert_eq!(out.matches('>').count(), 2);
            prop_assert_eq!(out.matches('"').count(), 2);
        }
    }
}
