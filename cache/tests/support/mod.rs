//! A real Redis server for one test: its own process on a free port, stopped by its own handle.

use std::{
    io::{BufRead as _, BufReader},
    net::{Ipv4Addr, TcpListener},
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;
use warmcast_cache::{Address, CacheConfig};

/// Why a server may fail to start although nothing is wrong: another process took the port in between.
const STARTS_MAX: usize = 5;

pub(crate) struct RedisServer {
    pub(crate) port: u16,
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
        for _ in 0..STARTS_MAX {
            let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
            let mut server = Self {
                port,
                arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
                environment: environment
                    .iter()
                    .map(|&(name, value)| (name.to_owned(), value.to_owned()))
                    .collect(),
                directory: tempfile::tempdir().unwrap(),
                process: None,
            };
            if server.run() {
                return server;
            }
        }
        panic!("redis-server did not start on any of {STARTS_MAX} free ports");
    }

    /// Starts the process, on the port it always has; whether it came up.
    pub(crate) fn run(&mut self) -> bool {
        let port = self.port.to_string();
        let mut process = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--port", &port, "--save", "", "--appendonly", "no", "--daemonize", "no"])
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("start redis-server: {error}; install it: apt-get install -y --no-install-recommends redis-server")
            });
        let mut log = BufReader::new(process.stdout.take().unwrap());
        let is_ready = log.by_ref_lines_contain("Ready to accept connections");
        self.process = Some((process, log));
        if !is_ready {
            self.kill();
        }
        is_ready
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

    /// Timeouts as long as a busy machine may need; tests that wait for one set it.
    pub(crate) fn config(&self) -> CacheConfig {
        CacheConfig {
            connect_timeout: Duration::from_secs(10),
            response_timeout: Duration::from_secs(10),
            apply_deadline: Duration::from_secs(10),
            key_prefix: "wc:".to_owned(),
            ..CacheConfig::new(Address::Tcp { host: "127.0.0.1".to_owned(), port: self.port })
        }
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

trait Lines {
    fn by_ref_lines_contain(&mut self, text: &str) -> bool;
}

impl Lines for BufReader<ChildStdout> {
    /// Reads until a line contains the text, or the process ends.
    fn by_ref_lines_contain(&mut self, text: &str) -> bool {
        self.lines().map_while(Result::ok).any(|line| line.contains(text))
    }
}
