//! Attaching the program to interfaces, by links that are pinned and outlive the daemon.

use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::xdp::{XdpLink, XdpLinkId};
use aya::programs::{ProgramError, Xdp, XdpMode as Flags, loaded_programs};

use super::error::DataplaneError;
use super::interface::{AttachedXdp, Interface};
use super::pins::Pins;
use super::{XdpMode, interface};

/// Where the program runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The interface's name.
    pub interface: String,
    /// Its index.
    pub ifindex: u32,
    /// Who runs the program.
    pub mode: AttachMode,
    /// Whether an earlier daemon had attached it: forwarding never paused.
    pub adopted: bool,
}

/// Who runs an XDP program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AttachMode {
    /// The driver, before the kernel allocates anything.
    Native,
    /// The network stack, later and more slowly; works on any interface.
    Generic,
}

impl AttachMode {
    /// The word in configuration, logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            AttachMode::Native => "native",
            AttachMode::Generic => "generic",
        }
    }
}

/// Attaches `program` to all interfaces, or replaces our own earlier program there atomically. If
/// one interface fails, those attached by this call are detached again.
pub(super) fn attach_all(
    program: &mut Xdp,
    interfaces: &[Interface],
    mode: XdpMode,
    pins: &Pins,
) -> Result<Vec<Attachment>, DataplaneError> {
    let mut attachments: Vec<Attachment> = Vec::new();
    for interface in interfaces {
        match attach(program, interface, mode, pins) {
            Ok(attachment) => attachments.push(attachment),
            Err(error) => {
                attachments
                    .iter()
                    .filter(|fresh| !fresh.adopted)
                    .for_each(|fresh| undo(fresh, pins));
                return Err(error);
            }
        }
    }
    Ok(attachments)
}

fn undo(fresh: &Attachment, pins: &Pins) {
    if let Err(error) = pins.detach(&fresh.interface) {
        tracing::warn!(interface = fresh.interface, %error, "the XDP program stays attached");
    }
}

/// Detaches the program from interfaces that the configuration no longer names.
pub(super) fn detach_others(interfaces: &[Interface], pins: &Pins) -> Result<(), DataplaneError> {
    for linked in pins.linked()? {
        if !interfaces.iter().any(|interface| interface.name == linked) {
            pins.detach(&linked)?;
            tracing::info!(interface = linked, reason = "not configured", "XDP program detached");
        }
    }
    Ok(())
}

fn attach(
    program: &mut Xdp,
    interface: &Interface,
    mode: XdpMode,
    pins: &Pins,
) -> Result<Attachment, DataplaneError> {
    let adopted = adopt(program, interface, mode, pins)?;
    if !adopted {
        refuse_foreign(interface)?;
        let link = attach_fresh(program, interface, mode)?;
        pin(program, link, interface, pins)?;
    }
    let generic = attached_mode(interface)?;
    let mode = if generic { AttachMode::Generic } else { AttachMode::Native };
    tracing::info!(
        interface = interface.name,
        mode = mode.as_str(),
        adopted,
        "XDP program attached"
    );
    Ok(Attachment { interface: interface.name.clone(), ifindex: interface.index, mode, adopted })
}

/// Puts the program in the place of the one that our pinned link runs on this interface. `false` if
/// there is no such link, or none that is usable, which is then removed.
fn adopt(
    program: &mut Xdp,
    interface: &Interface,
    mode: XdpMode,
    pins: &Pins,
) -> Result<bool, DataplaneError> {
    let path = pins.link(&interface.name);
    let Ok(pinned) = PinnedLink::from_pin(&path) else { return Ok(false) };
    let link = FdLink::from(pinned);
    let runs = link.info().map(|info| info.program_id()).unwrap_or(0);
    if let Some(reason) = unusable(interface.xdp, runs, mode) {
        tracing::info!(interface = interface.name, reason, "removing an earlier XDP link");
        drop(link);
        pins.detach(&interface.name)?;
        return Ok(false);
    }
    let link = XdpLink::try_from(link)
        .map_err(|_| DataplaneError::ForeignMap { path, what: "it is no XDP link".to_owned() })?;
    program.attach_to_link(link).map_err(attaching(interface))?;
    Ok(true)
}

/// Why a pinned link that runs program `runs` cannot be adopted for an interface, if so.
fn unusable(attached: Option<AttachedXdp>, runs: u32, mode: XdpMode) -> Option<&'static str> {
    match (attached, mode) {
        (Some(attached), _) if attached.program != runs => Some("it is another interface's"),
        (None, _) => Some("its interface is gone; this one has the same name"),
        (Some(AttachedXdp { generic: true, .. }), XdpMode::Native) => Some("native mode is wanted"),
        (Some(AttachedXdp { generic: false, .. }), XdpMode::Generic) => {
            Some("generic mode is wanted")
        }
        _ => None,
    }
}

/// A program that is not ours stays. What was ours has been adopted or detached by now.
fn refuse_foreign(interface: &Interface) -> Result<(), DataplaneError> {
    match attached_now(interface)? {
        None => Ok(()),
        Some(attached) => Err(DataplaneError::ForeignProgram {
            interface: interface.name.clone(),
            program: program_name(attached.program),
            id: attached.program,
        }),
    }
}

fn attach_fresh(
    program: &mut Xdp,
    interface: &Interface,
    mode: XdpMode,
) -> Result<XdpLinkId, DataplaneError> {
    let mut attach = |flags| program.attach_to_if_index(interface.index, flags);
    match mode {
        XdpMode::Generic => attach(Flags::Skb).map_err(attaching(interface)),
        XdpMode::Native => attach(Flags::Driver).map_err(|source| {
            DataplaneError::NativeModeRefused { interface: interface.name.clone(), source }
        }),
        XdpMode::Auto => attach(Flags::Driver).or_else(|refusal| {
            tracing::warn!(
                interface = interface.name,
                reason = %chain(&refusal),
                "the driver refused native XDP; using generic mode, which is slower"
            );
            attach(Flags::Skb).map_err(attaching(interface))
        }),
    }
}

fn pin(
    program: &mut Xdp,
    link: XdpLinkId,
    interface: &Interface,
    pins: &Pins,
) -> Result<(), DataplaneError> {
    let link = program.take_link(link).map_err(attaching(interface))?;
    // A kernel that refused a link has attached without one, and `link` detaches that when dropped.
    let link = FdLink::try_from(link)
        .map_err(|_| DataplaneError::NoLink { interface: interface.name.clone() })?;
    let path = pins.link(&interface.name);
    link.pin(&path).map(drop).map_err(|error| DataplaneError::Pin {
        action: "pin the link",
        path,
        source: std::io::Error::other(error),
    })
}

fn attached_mode(interface: &Interface) -> Result<bool, DataplaneError> {
    Ok(attached_now(interface)?.is_some_and(|attached| attached.generic))
}

fn attached_now(interface: &Interface) -> Result<Option<AttachedXdp>, DataplaneError> {
    let all = interface::list()?;
    Ok(all.iter().find(|one| one.index == interface.index).and_then(|one| one.xdp))
}

fn program_name(id: u32) -> String {
    loaded_programs()
        .filter_map(Result::ok)
        .find(|program| program.id() == id)
        .and_then(|program| program.name_as_str().map(str::to_owned))
        .unwrap_or_default()
}

fn attaching(interface: &Interface) -> impl Fn(ProgramError) -> DataplaneError {
    let interface = interface.name.clone();
    move |source| DataplaneError::Attach { interface: interface.clone(), source }
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(deeper) = cause {
        line = format!("{line}: {deeper}");
        cause = deeper.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_live_link_in_the_wanted_mode_is_adopted() {
        let on = |program, generic| Some(AttachedXdp { program, generic });
        assert_eq!(unusable(on(7, false), 7, XdpMode::Auto), None);
        assert_eq!(unusable(on(7, true), 7, XdpMode::Auto), None);
        assert_eq!(unusable(on(7, true), 7, XdpMode::Generic), None);
        assert_eq!(unusable(on(7, false), 7, XdpMode::Native), None);
        assert!(unusable(on(7, true), 7, XdpMode::Native).is_some());
        assert!(unusable(on(7, false), 7, XdpMode::Generic).is_some());
        assert!(unusable(on(8, false), 7, XdpMode::Auto).is_some(), "somebody else's program");
        assert!(unusable(None, 7, XdpMode::Auto).is_some(), "the interface was made anew");
    }
}
