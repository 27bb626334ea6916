//! Where the operator wants to hear of something, as it is written.

use gateway_core::target::HttpUrl;
use toml::Spanned;

use super::mistake::Mistake;
use super::section::Section;

/// A URL that can be posted to, such as `example`; `None`: it is wrong and noted.
pub(super) fn read_url(
    section: &Section<'_, '_>,
    key: &str,
    text: &Spanned<String>,
    example: &str,
) -> Option<HttpUrl> {
    HttpUrl::parse(text.get_ref())
        .inspect_err(|error| {
            section.mistake(
                Mistake::at(text.span(), format!("`{}` cannot be posted to", section.name(key)))
                    .label(error.to_string())
                    .help(format!("write it like {example:?}")),
            );
        })
        .ok()
}
