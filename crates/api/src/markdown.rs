//! Markdown as HTML that cannot do anything: what is HTML in it is shown as text, links lead only where a browser may
//! go without harm, and nothing is fetched.

use pulldown_cmark::{CowStr, Event, Options, Parser, Tag, TagEnd, html};

/// Longest text that is made into HTML, bytes; what is longer is cut at a line.
const BYTES_MAX: usize = 1 << 20;

/// Markdown as HTML, safe to place into a page as it is.
pub(crate) fn to_html(markdown: &str) -> String {
    let mut end = markdown.len().min(BYTES_MAX);
    while !markdown.is_char_boundary(end) {
        end -= 1;
    }
    let events = Parser::new_ext(&markdown[..end], Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH);
    let mut out = String::with_capacity(end * 2);
    html::push_html(&mut out, events.filter_map(harmless));
    out
}

fn harmless(event: Event<'_>) -> Option<Event<'_>> {
    match event {
        Event::Html(text) | Event::InlineHtml(text) => Some(Event::Text(text)),
        // What it shows stays as text.
        Event::Start(Tag::Image { .. }) | Event::End(TagEnd::Image) => None,
        Event::Start(Tag::Link { link_type, dest_url, title, id }) => {
            let dest_url = if leads_to_a_page(&dest_url) { dest_url } else { CowStr::Borrowed("#") };
            Some(Event::Start(Tag::Link { link_type, dest_url, title, id }))
        }
        other => Some(other),
    }
}

fn leads_to_a_page(url: &str) -> bool {
    let ours = (url.starts_with('/') && !url.starts_with("//") && !url.contains('\\')) || url.starts_with('#');
    ours || url.starts_with("https://") || url.starts_with("http://")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markdown_becomes_html() {
        for (text, want) in [
            ("# A *b*\n", "<h1>A <em>b</em></h1>\n"),
            ("- one\n- two\n", "<ul>\n<li>one</li>\n<li>two</li>\n</ul>\n"),
            ("a `b<c` d", "<p>a <code>b&lt;c</code> d</p>\n"),
            ("[x](/incidents/INC-0001)", "<p><a href=\"/incidents/INC-0001\">x</a></p>\n"),
        ] {
            assert_eq!(to_html(text), want);
        }
        assert!(to_html("| a | b |\n| --- | --- |\n| 1 | 2 |\n").contains("<td>2</td>"));
    }

    #[test]
    fn nothing_in_it_can_do_harm() {
        for (text, never) in [
            ("<script>alert(1)</script>", "<script"),
            ("a <img src=x onerror=alert(1)> b", "<img"),
            ("<div onclick=alert(1)>\n\nx\n\n</div>", "<div"),
            ("[x](javascript:alert(1))", "javascript:"),
            ("[x](JaVaScRiPt:alert(1))", "alert(1)\""),
            ("[x](data:text/html,<script>)", "data:"),
            ("[x](//evil.example/)", "evil.example"),
            ("[x](/\\evil.example/)", "evil.example"),
            ("<javascript:alert(1)>", "href=\"javascript"),
            ("![x](https://evil.example/pixel.png)", "evil.example"),
            ("[x](https://a/ \"\\\" onmouseover=alert(1) \\\"\")", "\" onmouseover"),
            ("```\"><script>\nx\n```", "<script"),
            ("[r]\n\n[r]: javascript:alert(1)", "javascript:"),
        ] {
            let html = to_html(text);
            assert!(!html.contains(never), "{text}: {html}");
        }
        assert!(to_html("<script>alert(1)</script>").contains("&lt;script&gt;"), "it is shown");
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let html = to_html(&"ä".repeat(BYTES_MAX));
        assert!(html.len() < BYTES_MAX * 2 && html.contains('ä'));
    }
}
