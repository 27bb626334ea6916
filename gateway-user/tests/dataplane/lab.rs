//! Network namespaces of their own for tests with the real kernel, gone when the test ends.
//!
//! A namespace belongs to a thread that was moved into it, so nothing has a name outside and
//! nothing is left behind, however the test ends. Pins have a directory for each test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use gateway_tests::privilege;
use gateway_user::dataplane::{self, Options, XdpMode};
use rustix::mount::{MountPropagationFlags, UnmountFlags};
use rustix::thread::UnshareFlags;

/// Maps that are pinned.
pub(crate) const MAPS: usize = 42;
/// The gateway's side of the one cable, and the other.
pub(crate) const NEAR: &str = "gwb-near";
pub(crate) const FAR: &str = "gwb-far";

/// What a test works in: this thread's namespace, with [`NEAR`] cabled to [`FAR`] in another.
pub(crate) struct Lab {
    pub(crate) pin_dir: PathBuf,
    pub(crate) far: Peer,
}

/// Runs `test` in a new lab, or says why it cannot.
pub(crate) fn with_lab(test: impl FnOnce(&Lab) + Send + 'static) {
    if !privilege::granted_or_skip() {
        return;
    }
    let run = move || {
        enter_namespace();
        let lab = Lab::new();
        test(&lab);
    };
    let outcome = thread::spawn(run).join();
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

impl Lab {
    fn new() -> Lab {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("gateway-test-{}-{number}", std::process::id());
        let lab = Lab { pin_dir: Path::new("/sys/fs/bpf").join(name), far: Peer::new() };
        ip(&format!("link add {NEAR} type veth peer name {FAR} netns {}", lab.far.thread));
        ip(&format!("addr add 10.9.0.1/24 dev {NEAR}"));
        ip(&format!("link set {NEAR} up"));
        ip("link set lo up");
        lab.far.run(|| {
            ip("link set lo up");
            ip(&format!("link set {FAR} up"));
        });
        forward(NEAR, true);
        lab
    }

    pub(crate) fn options(&self) -> Options {
        Options {
            interfaces: vec![NEAR.to_owned()],
            xdp_mode: XdpMode::Auto,
            pin_dir: self.pin_dir.clone(),
            flows_max: 1_024,
            nat_ports: 10_000..=32_767,
            weights_age_max: Duration::from_secs(30),
            hash_seed: None,
        }
    }

    /// Takes the BPF file system away, for this thread alone.
    pub(crate) fn hide_bpffs(&self) {
        // SAFETY: only the mounts are changed; descriptor tables stay shared.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }.unwrap();
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        rustix::mount::mount_change("/", private).unwrap();
        while rustix::mount::unmount("/sys/fs/bpf", UnmountFlags::DETACH).is_ok() {}
    }

    /// Names in the pin directory; none if it is gone.
    pub(crate) fn pins(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.pin_dir).into_iter().flatten().flatten();
        let mut names: Vec<String> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    pub(crate) fn pin(&self, name: &str) -> PathBuf {
        self.pin_dir.join(name)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Err(error) = dataplane::detach(&self.pin_dir) {
            eprintln!("{}: left behind: {error}", self.pin_dir.display());
        }
    }
}

/// A second namespace, and the thread that lives there.
pub(crate) struct Peer {
    thread: i32,
    jobs: Option<mpsc::Sender<Job>>,
    handle: Option<thread::JoinHandle<()>>,
}

type Job = Box<dyn FnOnce() + Send>;

impl Peer {
    fn new() -> Peer {
        let (jobs, todo) = mpsc::channel::<Job>();
        let (told, id) = mpsc::channel();
        let handle = thread::spawn(move || {
            enter_namespace();
            told.send(rustix::thread::gettid().as_raw_nonzero().get()).unwrap();
            todo.into_iter().for_each(|job| job());
        });
        Peer { thread: id.recv().unwrap(), jobs: Some(jobs), handle: Some(handle) }
    }

    /// Its thread's id, by which `ip` finds the namespace.
    pub(crate) fn thread(&self) -> i32 {
        self.thread
    }

    /// Runs `job` there and waits for its answer.
    pub(crate) fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, answer) = mpsc::channel();
        let job: Job = Box::new(move || {
            let _ = done.send(job());
        });
        self.jobs.as_ref().unwrap().send(job).unwrap();
        answer.recv().expect("what ran in the other namespace failed")
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(handle) = self.handle.take() {
            let _ = handle.join();
        }
    }
}

fn enter_namespace() {
    // SAFETY: only the network namespace is changed; descriptor tables stay shared.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.unwrap();
}

/// Runs `ip` with these arguments in the calling thread's namespace.
pub(crate) fn ip(arguments: &str) -> String {
    run("ip", arguments)
}

/// Runs a tool that must succeed; its output.
pub(crate) fn run(tool: &str, arguments: &str) -> String {
    let output = Command::new(tool).args(arguments.split_whitespace()).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{tool} {arguments}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Turns IPv4 forwarding on an interface on or off.
pub(crate) fn forward(interface: &str, on: bool) {
    let path = format!("/proc/sys/net/ipv4/conf/{interface}/forwarding");
    fs::write(path, if on { "1" } else { "0" }).unwrap();
}

/// Whether a native or generic XDP program is on an interface, as `ip` shows it: `xdp` or
/// `xdpgeneric`.
pub(crate) fn xdp_on(interface: &str) -> Option<String> {
    let shown = ip(&format!("link show dev {interface}"));
    shown.split_whitespace().find(|word| word.starts_with("xdp")).map(str::to_owned)
}

/// Longer than anything here takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(30);

/// Waits until `holds`, or fails with `what` after [`DEADLINE`].
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < DEADLINE, "not within {DEADLINE:?}: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}
