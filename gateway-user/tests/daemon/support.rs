//! The real daemon as a child process, small HTTP backends, and clients.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Longer than anything here takes on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// The binary under test.
pub(crate) fn gateway() -> Command {
    Command::new(env!("CARGO_BIN_EXE_gateway"))
}

/// What a command that ends by itself said.
pub(crate) fn output(arguments: &[&str]) -> Output {
    gateway().args(arguments).output().expect("the binary starts")
}

/// Both streams as text.
pub(crate) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// What `look` finds, as soon as it finds it.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < DEADLINE, "not within {DEADLINE:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// An address on loopback that nobody listens on. Its port is below those that the kernel gives to
/// connections, so that none of them takes it before the daemon does.
pub(crate) fn free_addr() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        // Tests run at once, in processes of their own: each begins elsewhere.
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 12_000 + (std::process::id() * 61 + step) % 20_000;
        let addr = SocketAddr::from(([127, 0, 0, 1], port as u16));
        if TcpListener::bind(addr).is_ok() {
            return addr;
        }
    }
}

/// A response as read from a connection.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) body: String,
    head: Vec<String>,
}

impl Response {
    /// The value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.iter().find_map(|line| {
            let (own, value) = line.split_once(':')?;
            own.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }
}

/// One connection of a client that keeps it.
pub(crate) struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    pub(crate) fn connect(addr: SocketAddr) -> std::io::Result<Client> {
        let stream = TcpStream::connect(addr)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_nodelay(true)?;
        Ok(Client { stream: BufReader::new(stream) })
    }

    pub(crate) fn get(&mut self, path: &str) -> std::io::Result<Response> {
        write!(self.stream.get_mut(), "GET {path} HTTP/1.1\r\nHost: test\r\n\r\n")?;
        let head = read_head(&mut self.stream)?;
        let status = head.first().and_then(|line| line.split(' ').nth(1)?.parse().ok());
        let length = head.iter().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
        });
        let mut body = vec![0; length.unwrap_or(0)];
        self.stream.read_exact(&mut body)?;
        let status =
            status.ok_or_else(|| std::io::Error::other(format!("no status in {head:?}")))?;
        Ok(Response { status, body: String::from_utf8_lossy(&body).into_owned(), head })
    }
}

/// One request on a connection of its own.
pub(crate) fn get(addr: SocketAddr, path: &str) -> std::io::Result<Response> {
    Client::connect(addr)?.get(path)
}

/// Lines up to the empty one; an error if the other side closed before.
fn read_head(stream: &mut impl BufRead) -> std::io::Result<Vec<String>> {
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        match line.trim_end() {
            "" => return Ok(head),
            line => head.push(line.to_owned()),
        }
    }
}

/// A backend that answers each request with its name, after a delay.
pub(crate) struct Backend {
    pub(crate) addr: SocketAddr,
    served: Arc<AtomicU64>,
}

impl Backend {
    /// Serves until the test process ends.
    pub(crate) fn start(name: &'static str, delay: Duration) -> Backend {
        Backend::after(name, move || std::thread::sleep(delay))
    }

    /// Answers while nobody holds `gate`.
    pub(crate) fn behind(name: &'static str, gate: &Arc<Mutex<()>>) -> Backend {
        let gate = Arc::clone(gate);
        Backend::after(name, move || drop(gate.lock()))
    }

    /// Answers after whatever `wait` waits for.
    pub(crate) fn after(name: &'static str, wait: impl Fn() + Send + Sync + 'static) -> Backend {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = listener.local_addr().expect("its address");
        let served = Arc::new(AtomicU64::new(0));
        let (count, wait) = (Arc::clone(&served), Arc::new(wait));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (count, wait) = (Arc::clone(&count), Arc::clone(&wait));
                // A connection that breaks is the other side's business.
                std::thread::spawn(move || drop(serve(stream, name, &*wait, &count)));
            }
        });
        Backend { addr, served }
    }

    /// Requests answered.
    pub(crate) fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }
}

fn serve(
    stream: TcpStream,
    name: &str,
    wait: &dyn Fn(),
    served: &AtomicU64,
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    loop {
        read_head(&mut stream)?;
        wait();
        served.fetch_add(1, Ordering::Relaxed);
        let length = name.len();
        write!(stream.get_mut(), "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{name}")?;
    }
}

/// Clients that ask one after the other until they are stopped.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<(u64, u64)>>,
}

impl Load {
    pub(crate) fn start(addr: SocketAddr, clients: usize) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let clients = (0..clients).map(|_| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || ask_until(addr, &stop))
        });
        Load { clients: clients.collect(), stop }
    }

    /// Requests answered with 200, and those that were not.
    pub(crate) fn stop(self) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        let counts = self.clients.into_iter().map(|client| client.join().expect("a client"));
        counts.fold((0, 0), |(good, bad), (g, b)| (good + g, bad + b))
    }
}

fn ask_until(addr: SocketAddr, stop: &AtomicBool) -> (u64, u64) {
    let (mut good, mut bad) = (0, 0);
    let mut connection = None;
    while !stop.load(Ordering::Relaxed) {
        let client = match connection.take() {
            Some(client) => Ok(client),
            None => Client::connect(addr),
        };
        let answer = client.and_then(|mut client| Ok((client.get("/")?, client)));
        match answer {
            Ok((Response { status: 200, .. }, client)) => {
                good += 1;
                connection = Some(client);
            }
            _ => bad += 1,
        }
    }
    (good, bad)
}

/// The daemon under test; killed if the test forgets it.
pub(crate) struct Daemon {
    child: Child,
    folder: tempfile::TempDir,
    pub(crate) admin: SocketAddr,
    pub(crate) vip: SocketAddr,
}

impl Daemon {
    /// Starts it with a proxy-only configuration and waits until it serves.
    #[track_caller]
    pub(crate) fn start(backends: &[(&str, SocketAddr)]) -> Daemon {
        let daemon = Daemon::spawn(free_addr(), free_addr(), backends);
        daemon.wait_until_ready();
        daemon
    }

    /// Ends it and starts another in its place, which finds what it left.
    #[track_caller]
    pub(crate) fn restart(&mut self) {
        self.signal(rustix::process::Signal::TERM);
        assert!(self.wait().success());
        self.start_again();
    }

    /// Starts another one where one has ended.
    #[track_caller]
    pub(crate) fn start_again(&mut self) {
        self.child = run(self.folder.path());
        self.wait_until_ready();
    }

    #[track_caller]
    fn wait_until_ready(&self) {
        eventually("the daemon is ready", || {
            let ready = get(self.admin, "/readyz").ok()?;
            (ready.status == 200).then_some(())
        });
    }

    /// Starts it, whatever becomes of it.
    pub(crate) fn spawn(
        vip: SocketAddr,
        admin: SocketAddr,
        backends: &[(&str, SocketAddr)],
    ) -> Daemon {
        Daemon::spawn_with(vip, admin, &config(vip, admin, backends))
    }

    /// Starts it with this configuration, of these addresses, and waits until it serves.
    #[track_caller]
    pub(crate) fn with(vip: SocketAddr, admin: SocketAddr, config: &str) -> Daemon {
        let daemon = Daemon::spawn_with(vip, admin, config);
        daemon.wait_until_ready();
        daemon
    }

    fn spawn_with(vip: SocketAddr, admin: SocketAddr, config: &str) -> Daemon {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("gateway.toml"), config).expect("it is written");
        Daemon { child: run(folder.path()), folder, admin, vip }
    }

    /// The file that the admin token lies in.
    pub(crate) fn token_path(&self) -> PathBuf {
        self.folder.path().join("token")
    }

    /// Where versions of models are kept.
    pub(crate) fn models_path(&self) -> PathBuf {
        self.folder.path().join("models")
    }

    /// Where what was learnt is kept.
    pub(crate) fn state_path(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    pub(crate) fn config_path(&self) -> PathBuf {
        self.folder.path().join("gateway.toml")
    }

    /// Puts another text in the place of the configuration, as an editor does.
    pub(crate) fn write_config(&self, text: &str) {
        let new = self.folder.path().join("new");
        std::fs::write(&new, text).expect("the new text is written");
        std::fs::rename(&new, self.config_path()).expect("it takes the old one's place");
    }

    pub(crate) fn log(&self) -> String {
        read(&self.folder.path().join("log"))
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("the daemon takes a signal");
    }

    /// Waits until it ends by itself.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> ExitStatus {
        eventually("the daemon ends", || self.child.try_wait().expect("its state"))
    }

    /// Waits until a request, and no other, is under way at the first backend.
    #[track_caller]
    pub(crate) fn wait_for_a_request_at_the_backend(&self) {
        eventually("the request is at the backend", || {
            let state = self.state();
            let in_flight = state["pools"][0]["backends"][0]["inputs"]["in_flight"].as_u64()?;
            (in_flight == 1).then_some(())
        });
    }

    /// The JSON of `/v1/state`.
    #[track_caller]
    pub(crate) fn state(&self) -> serde_json::Value {
        let answer = get(self.admin, "/v1/state").expect("the admin address answers");
        assert_eq!(answer.status, 200);
        serde_json::from_str(&answer.body).expect("the state is JSON")
    }

    /// Names and weights of the backends of the first pool.
    #[track_caller]
    pub(crate) fn weights(&self) -> Vec<(String, f64)> {
        let state = self.state();
        let backends = state["pools"][0]["backends"].as_array().expect("backends").iter();
        let pair = |backend: &serde_json::Value| {
            Some((backend["name"].as_str()?.to_owned(), backend["weight"].as_f64()?))
        };
        backends.map(|backend| pair(backend).expect("a name and a weight")).collect()
    }

    /// The value of a metric, by its name and labels as written.
    pub(crate) fn metric(&self, series: &str) -> Option<f64> {
        let page = get(self.admin, "/metrics").ok()?.body;
        let line = page.lines().find(|line| line.starts_with(&format!("{series} ")))?;
        line.rsplit(' ').next()?.parse().ok()
    }
}

/// The daemon by the configuration in a folder, which keeps what was learnt and the log there.
fn run(folder: &Path) -> Child {
    let log = std::fs::File::create(folder.join("log")).expect("a log file");
    let (state, token) = (folder.join("state"), folder.join("token"));
    let models = folder.join("models");
    std::fs::write(&token, "a token of these tests").expect("the token is written");
    gateway()
        .args(["run", "--log-format", "json"])
        .args(["--set", &format!("gateway.admin_token_file = {:?}", token.display().to_string())])
        .args(["--set", &format!("gateway.models = {:?}", models.display().to_string())])
        .args(["--set", &format!("gateway.state = {:?}", state.display().to_string())])
        .arg("-c")
        .arg(folder.join("gateway.toml"))
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("the binary starts")
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // One that has ended cannot be killed, and need not be.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the daemon's log:\n{}", self.log());
        }
    }
}

/// A proxy-only configuration, quick to learn so that a test does not wait.
pub(crate) fn config(
    vip: SocketAddr,
    admin: SocketAddr,
    backends: &[(&str, SocketAddr)],
) -> String {
    // Longer than a test waits, so that no test can take a drain's deadline for its end.
    let drain = 2 * DEADLINE.as_secs();
    let mut text = format!(
        "[gateway]\nadmin = \"{admin}\"\ntick = \"50ms\"\nproxy_threads = 1\n\
         drain_timeout = \"{drain}s\"\n[[vip]]\nname = \"site\"\naddress = \"{vip}\"\n\
         [[pool]]\nname = \"web\"\n"
    );
    for (name, addr) in backends {
        text += &format!("[[pool.backend]]\nname = {name:?}\naddress = \"{addr}\"\n");
    }
    text
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}
