//! The `[pool.llm]` table, what is read of the bodies of requests to language models; and the pool's
//! affinity, which goes by what their prompts begin with.

use std::time::Duration;

use gateway_core::fleet::{AffinitySpec, LlmSpec};
use http::uri::PathAndQuery;

use super::mistake::Mistake;
use super::section::Section;
use super::value::{Size, Value};

/// Reads one `[pool.llm]`.
pub(super) fn read(mut section: Section<'_, '_>) -> LlmSpec {
    let default = LlmSpec::default();
    let paths = if section.has("paths") { read_paths(&mut section) } else { default.paths };
    let (least, most) = (Size(1024), Size(16 << 20));
    let body_max = section.within("body_max", Size(default.body_max), least..=most).0;
    let wait_max =
        section.within("wait_max", default.wait_max, Duration::ZERO..=Duration::from_secs(10));
    let read_bodies = section.get_or("read_bodies", default.read_bodies);
    section.finish();
    LlmSpec { read_bodies, paths, body_max, wait_max }
}

/// Reads a pool's affinity.
pub(super) fn read_affinity(pool: &mut Section<'_, '_>, llm: &LlmSpec) -> AffinitySpec {
    let default = AffinitySpec::default();
    let word = pool.word("affinity", &[("none", false), ("prefix", true)]);
    let by_prefix = word.as_ref().is_some_and(|word| *word.get_ref());
    if let Some(word) = word.filter(|_| by_prefix && !llm.read_bodies) {
        pool.mistake(
            Mistake::at(word.span(), "`pool.affinity` is \"prefix\", but no body is read")
                .label("what prompts begin with stands in the body")
                .help("add `[pool.llm]` with `read_bodies = true`"),
        );
    }
    let header = super::pool::read_header(pool, "affinity_header");
    let load_max = pool.within("affinity_load_max", default.load_max, 1.0..=100.0);
    AffinitySpec { by_prefix, header, load_max }
}

fn read_paths(section: &mut Section<'_, '_>) -> Vec<String> {
    let expected = "a list of paths such as [\"/v1/messages\"]";
    let mut paths = Vec::new();
    for item in section.items_of("paths", expected) {
        let Some(path) = String::from_toml(item.get_ref()) else {
            section.unexpected("paths", item, String::EXPECTED);
            continue;
        };
        let is_path = path.parse::<PathAndQuery>().is_ok() && !path.contains('?');
        if path.starts_with('/') && is_path {
            paths.push(path);
        } else {
            section.mistake(
                Mistake::at(item.span(), format!("`pool.llm.paths` cannot have {path:?}"))
                    .label("not a path")
                    .help("begin with a slash and leave the query out, as in \"/v1/messages\""),
            );
        }
    }
    paths
}
