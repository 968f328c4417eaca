//! A real server for one test: its own process on a free port, stopped by its own handle.

use std::{
    io::{BufRead as _, BufReader},
    net::{Ipv4Addr, TcpListener},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;
use warmcast_cache::{Address, CacheConfig, Servers};

/// Why a server may fail to start although nothing is wrong: another process took the port in between.
const STARTS_MAX: usize = 5;

pub(crate) struct RedisServer {
    pub(crate) port: u16,
    binary: String,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    directory: TempDir,
    process: Option<(Child, BufReader<ChildStdout>)>,
}

impl RedisServer {
    pub(crate) fn start() -> Self {
        Self::start_with(&[], &[])
    }

    pub(crate) fn start_with(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::start_on(free_port, "redis-server", arguments, environment)
    }

    /// On one of the ports that `any_port` proposes.
    pub(crate) fn start_on(
        any_port: impl Fn() -> u16,
        binary: &str,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        for _ in 0..STARTS_MAX {
            let mut server = Self::new(any_port(), binary, arguments, environment);
            if server.run() {
                return server;
            }
        }
        panic!("{binary} did not start on any of {STARTS_MAX} free ports");
    }

    /// A sentinel; `configure` writes `sentinel.conf` into its directory.
    pub(crate) fn start_sentinel(configure: impl Fn(&Path)) -> Self {
        for _ in 0..STARTS_MAX {
            let mut sentinel = Self::new(free_port(), "redis-server", &[], &[]);
            configure(sentinel.directory());
            if sentinel.spawn(&["sentinel.conf", "--sentinel"], "+monitor master") {
                return sentinel;
            }
        }
        panic!("no sentinel started on any of {STARTS_MAX} free ports");
    }

    fn new(port: u16, binary: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        Self {
            port,
            binary: binary.to_owned(),
            arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
            environment: environment
                .iter()
                .map(|&(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            directory: tempfile::tempdir().unwrap(),
            process: None,
        }
    }

    /// Starts the process, on the port it always has; whether it came up.
    pub(crate) fn run(&mut self) -> bool {
        let server = ["--save", "", "--appendonly", "no", "--daemonize", "no"];
        self.spawn(&server, "Ready to accept connections")
    }

    /// Whether the process came so far as to log this.
    fn spawn(&mut self, arguments: &[&str], until: &str) -> bool {
        let mut process = Command::new(&self.binary)
            .args(arguments)
            .args(["--bind", "127.0.0.1", "--port", &self.port.to_string()])
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("start {}: {error}; install it: sandbox/setup.sh redis", self.binary)
            });
        let mut log = BufReader::new(process.stdout.take().unwrap());
        let is_ready = log.by_ref_lines_contain(until);
        self.process = Some((process, log));
        if !is_ready {
            self.kill();
        }
        is_ready
    }

    pub(crate) const fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// Ends the process as a crash would.
    pub(crate) fn kill(&mut self) {
        if let Some((mut process, _)) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn address(&self) -> Address {
        Address::Tcp { host: "127.0.0.1".to_owned(), port: self.port }
    }

    /// Where the process runs, and keeps its files.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn config(&self) -> CacheConfig {
        patient(CacheConfig::new(Servers::Standalone(self.address())))
    }

    /// A connection for what the test does beside the code under test.
    pub(crate) async fn admin(&self) -> redis::aio::MultiplexedConnection {
        let client = redis::Client::open(self.url()).unwrap();
        let settings = redis::AsyncConnectionConfig::new()
            .set_connection_timeout(Some(Duration::from_secs(10)))
            .set_response_timeout(Some(Duration::from_secs(10)));
        client.get_multiplexed_async_connection_with_config(&settings).await.unwrap()
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Timeouts as long as a busy machine may need; tests that wait for one set it.
pub(crate) fn patient(config: CacheConfig) -> CacheConfig {
    CacheConfig {
        connect_timeout: Duration::from_secs(10),
        response_timeout: Duration::from_secs(10),
        apply_deadline: Duration::from_secs(10),
        key_prefix: "wc:".to_owned(),
        ..config
    }
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

trait Lines {
    fn by_ref_lines_contain(&mut self, text: &str) -> bool;
}

impl Lines for BufReader<ChildStdout> {
    /// Reads until a line contains the text, or the process ends.
    fn by_ref_lines_contain(&mut self, text: &str) -> bool {
        self.lines().map_while(Result::ok).any(|line| line.contains(text))
    }
}
