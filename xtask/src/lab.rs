//! The lab: everything real, small enough for one machine.
//!
//! A client, the gateway and five unlike backends in network namespaces; the same load on a pool
//! whose weights are learned and on its control group, at L4 and L7; a backend that becomes slow,
//! returns, becomes sick and heals. While it runs it is shown; then it is judged.

pub(crate) mod compare;
mod deciders;
pub(crate) mod interrupt;
mod models;
mod plays;
mod relay;
mod script;
mod stage;
mod summary;
mod table;
mod view;
mod world;

use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use gateway_tests::binaries::Binaries;
use gateway_tests::leftovers;
use gateway_tests::load::Load;
use gateway_tests::report::Report;
use gateway_tests::testbed::{ADMIN, BackendNode, GatewayNode, Testbed};
use rustix::process::Signal;
use rustix::time::{ClockId, clock_gettime};

use self::deciders::Deciders;
pub(crate) use self::models::Models;
use self::script::{SCENES, Script, VICTIM};
use self::summary::Summary;
use self::table::{Frame, Screen};
use self::view::View;
pub(crate) use self::world::Paths;

/// Length of the script where none is asked for.
const SCRIPT_DEFAULT: Duration = Duration::from_secs(60);

/// From the start of the clients to the first request: they need a moment to come up.
const HEAD_START: Duration = Duration::from_millis(1_500);

/// Between two looks at everything.
const STEP: Duration = Duration::from_millis(250);

/// Between two drawings of the table.
const DRAW_EVERY: u32 = 4;

/// How the lab shall run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    /// Length of the one script; without, scripts repeat until Ctrl-C.
    pub(crate) seconds: Option<u64>,
    /// The summary as JSON.
    pub(crate) json: bool,
    /// Leave everything standing until Ctrl-C.
    pub(crate) keep: bool,
    /// Which paths get load.
    pub(crate) paths: Paths,
    /// How far the models of the learned pool may go.
    pub(crate) models: Models,
}

/// Runs the lab. Fails by its exit code where a promise was broken.
///
/// # Errors
/// Something could not be set up, or a process of the lab ended early: the error quotes its log.
pub(crate) fn run(binaries: &Binaries, options: Options) -> Result<ExitCode> {
    interrupt::watch();
    for removed in leftovers::remove()? {
        eprintln!("removed what an earlier run left: {removed}");
    }
    let testbed = Testbed::new(binaries, world::SERVICE_TIMES_MS.len())?;
    let backends = world::start_backends(&testbed)?;
    let vips = world::vips(&testbed, options.paths)?;
    let mut gateway =
        testbed.start_gateway(&world::config(&testbed, options.paths, options.models, &vips))?;
    let view = View::parse(&gateway.get("/v1/state")?)?;
    introduce(&testbed, &view)?;

    let script = Script::new(options.seconds.map_or(SCRIPT_DEFAULT, Duration::from_secs));
    let start = Instant::now() + HEAD_START;
    let start_at_ns = monotonic_ns(HEAD_START);
    let load = world::start_load(&testbed, options.paths, &vips, script, start_at_ns)?;
    let (paths, screen) = (options.paths, Screen::new());
    let deciders = Deciders::of(vec![world::LEARNED.to_owned()]);
    let mut show = Show { script, start, paths, screen, scene: None, view, deciders };
    let complete = show.play(&mut gateway, &backends, &load, options.seconds.is_some())?;
    show.screen.say("\nwaiting for the last answers");
    let reports: Vec<Report> = load.into_iter().map(Load::stop).collect::<Result<_>>()?;

    let summary = Summary::new(script, paths, show.view.attachments, &reports, complete);
    if options.json {
        println!("{}", serde_json::to_string_pretty(&summary)?);
    } else {
        println!("\n{summary}");
        println!("{}", show.deciders);
    }
    if options.keep {
        interrupt::forget();
        eprintln!("everything stands until Ctrl-C");
        wait_for_interrupt();
    }
    gateway.stop(Signal::INT)?;
    Ok(if summary.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn wait_for_interrupt() {
    while !interrupt::came() {
        thread::sleep(STEP);
    }
}

/// `CLOCK_MONOTONIC` in ns, `ahead` from now.
fn monotonic_ns(ahead: Duration) -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64 + ahead.as_nanos() as u64
}

/// Says what stands and how to look at it.
fn introduce(testbed: &Testbed, view: &View) -> Result<()> {
    let admin = relay::start(testbed.gateway(), ADMIN)?;
    for attachment in &view.attachments {
        eprintln!("XDP on {}: {}", attachment.interface, attachment.mode);
    }
    let gateway = testbed.binaries().gateway.display();
    eprintln!("metrics:   http://{admin}/metrics");
    eprintln!("admin:     http://{admin}/v1/state, /v1/decisions, /readyz");
    eprintln!("status:    {gateway} status --admin {admin}");
    eprintln!("explain:   {gateway} explain {}/b{VICTIM} --admin {admin}", world::LEARNED);
    let pins = testbed.pins().display();
    eprintln!("flows:     {gateway} flows --pin-dir {pins} --admin {admin}");
    eprintln!("maps:      bpftool map dump pinned {pins}/WEIGHTS");
    eprintln!("inside:    nsenter --net=/run/netns/{} bash", testbed.gateway().name());
    eprintln!("logs:      {}", testbed.folder().display());
    Ok(())
}

/// The lab at work.
struct Show {
    script: Script,
    /// When the load begins.
    start: Instant,
    paths: Paths,
    screen: Screen,
    /// Number of the scene that was begun last, counted on when the script repeats.
    scene: Option<usize>,
    view: View,
    deciders: Deciders,
}

impl Show {
    /// Plays until the end of the script (`once`) or a signal; whether it was played to its end.
    fn play(
        &mut self,
        gateway: &mut GatewayNode<'_>,
        backends: &[BackendNode<'_>],
        load: &[Load],
        once: bool,
    ) -> Result<bool> {
        for turn in 0.. {
            let due = self.start + STEP * turn;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if interrupt::came() {
                return Ok(!once && self.scene >= Some(SCENES.len()));
            }
            let since = self.start.elapsed();
            if once && since >= self.script.length() {
                return Ok(true);
            }
            self.begin_scene(since, backends)?;
            gateway.node().still_runs()?;
            let state = gateway.get("/v1/state")?;
            self.view = View::parse(&state)?;
            self.deciders.look(&serde_json::from_str(&state).context("reading /v1/state")?);
            if turn % DRAW_EVERY == 0 {
                self.draw(since, load);
            }
        }
        Ok(true)
    }

    /// Begins the scene that is due, if it has not begun.
    fn begin_scene(&mut self, since: Duration, backends: &[BackendNode<'_>]) -> Result<()> {
        let now = self.script.scene_at(since);
        if self.scene == Some(now) {
            return Ok(());
        }
        self.scene = Some(now);
        let scene = &SCENES[now % SCENES.len()];
        let victim = backends.get(VICTIM - 1).context("the script's victim is not in the lab")?;
        victim.fault(scene.fault)?;
        self.screen.say(&format!("{:>6.1} s  {}", since.as_secs_f64(), scene.says));
        Ok(())
    }

    fn draw(&mut self, since: Duration, load: &[Load]) {
        let seconds: Vec<_> = load.iter().map(Load::seconds).collect();
        let scene = self.scene.map_or("", |scene| SCENES[scene % SCENES.len()].says);
        let (paths, view) = (self.paths, &self.view);
        self.screen.draw(&Frame { since, scene, paths, seconds: &seconds, view });
    }
}
