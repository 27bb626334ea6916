//! How far the models of the lab's learned pools may go.

/// A stage for all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Models {
    /// They are not asked.
    Off,
    /// They are asked, scored and shown; the simple rules decide.
    #[default]
    Shadow,
    /// They decide wherever they beat the simple rules.
    On,
}

impl Models {
    /// The section of a pool.
    pub(crate) fn section(self) -> String {
        let stage = match self {
            Models::Off => "off",
            Models::Shadow => "shadow",
            Models::On => "on",
        };
        format!("[pool.models]\nclasses = {stage:?}\nforecast = {stage:?}\nfault = {stage:?}\n")
    }
}
