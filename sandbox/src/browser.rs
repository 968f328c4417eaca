//! A browser without a window, for looking at pages as people see them: what is on them at which width, what they ask for, and
//! pictures of them.
//!
//! It is Debian's Chromium, spoken to by its DevTools protocol over pipes: JSON messages, each with a zero byte after it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::{Instant, sleep, timeout};

/// Programs that are looked for, the smallest first.
const PROGRAMS: [&str; 3] = ["chromium-headless-shell", "chromium", "chromium-browser"];
/// The browser reads its third and writes its fourth file: they are made of its first two here, which a shell can do and safe
/// Rust cannot.
const PIPES: &str = r#"exec "$@" 3<&0 4>&1 </dev/null >&2"#;
/// No sandbox: it runs as root in a container, and shows our own pages only. No calls home.
const FLAGS: [&str; 13] = [
    "--remote-debugging-pipe",
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
];
/// A browser that does not answer for so long never will: a small machine that builds beside it is slow.
const ANSWER_PATIENCE: Duration = Duration::from_secs(60);
const END_PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of one message: a picture of a long page.
const MESSAGE_BYTES_MAX: u64 = 64 * 1024 * 1024;
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Why a browser did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum BrowserError {
    /// There is none.
    #[error("no browser is installed ({}): `sandbox/setup.sh chromium` installs one", PROGRAMS.join(", "))]
    Missing,
    /// It cannot be run, or its pipes broke.
    #[error("the browser: {0}")]
    Io(#[from] std::io::Error),
    /// It sent something that is no message.
    #[error("the browser sent no message of its protocol: {0}")]
    Protocol(#[from] serde_json::Error),
    /// It ended.
    #[error("the browser ended; it was asked to {method}")]
    Ended {
        /// What it was asked.
        method: String,
    },
    /// It does not answer.
    #[error("the browser did not answer in time; it was asked to {method}")]
    Silent {
        /// What it was asked.
        method: String,
    },
    /// It refused.
    #[error("the browser refused to {method}: {answer}")]
    Refused {
        /// What it was asked.
        method: String,
        /// What it said.
        answer: Value,
    },
    /// The page is not as it was waited for.
    #[error("the page never had it that {expression}; it shows:\n{shown}")]
    NeverSo {
        /// What was waited for.
        expression: String,
        /// The page's text.
        shown: String,
    },
}

/// How a page is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Viewport {
    /// Width in CSS pixels.
    pub width: u32,
    /// Height in CSS pixels.
    pub height: u32,
    /// Whether people want dark pages.
    pub is_dark: bool,
}

/// A browser with one page. Dropping it kills it.
#[derive(Debug)]
pub struct Browser {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    last_id: u64,
    session: Option<String>,
    requests: Vec<String>,
    complaints: Vec<String>,
    _profile: TempDir,
}

impl Browser {
    /// Starts one, with an empty page and a profile of its own.
    ///
    /// # Errors
    /// There is none, or it does not work.
    pub async fn start() -> Result<Self, BrowserError> {
        let profile = tempfile::Builder::new().prefix("warmcast-browser-").tempdir()?;
        let mut data = OsString::from("--user-data-dir=");
        data.push(profile.path());
        let mut child = Command::new("sh")
            .args(["-c", PIPES, "sh"])
            .arg(program().ok_or(BrowserError::Missing)?)
            .args(FLAGS)
            .arg(data)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (to, from) = pipes.ok_or_else(|| std::io::Error::other("it has no pipes"))?;
        let mut browser = Self {
            child,
            to,
            from: BufReader::new(from),
            last_id: 0,
            session: None,
            requests: Vec::new(),
            complaints: Vec::new(),
            _profile: profile,
        };
        let page = browser.call("Target.createTarget", json!({"url": "about:blank"})).await?;
        let attach = json!({"targetId": page.get("targetId"), "flatten": true});
        let attached = browser.call("Target.attachToTarget", attach).await?;
        browser.session = attached.get("sessionId").and_then(Value::as_str).map(str::to_owned);
        for domain in ["Page.enable", "Network.enable", "Runtime.enable", "Log.enable"] {
            browser.call(domain, json!({})).await?;
        }
        Ok(browser)
    }

    /// Looks at the page like this from now on.
    ///
    /// # Errors
    /// See [`BrowserError`].
    pub async fn look(&mut self, at: Viewport) -> Result<(), BrowserError> {
        let Viewport { width, height, is_dark } = at;
        let metrics =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        self.call("Emulation.setDeviceMetricsOverride", metrics).await?;
        let scheme = if is_dark { "dark" } else { "light" };
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.call("Emulation.setEmulatedMedia", features).await.map(drop)
    }

    /// Goes to a page, and waits until it is loaded.
    ///
    /// # Errors
    /// See [`BrowserError`].
    pub async fn open(&mut self, url: &str) -> Result<(), BrowserError> {
        self.call("Page.navigate", json!({"url": url})).await?;
        let arrived = format!("location.href.startsWith('{url}') && document.readyState === 'complete'");
        self.until(&arrived, ANSWER_PATIENCE).await
    }

    /// What an expression of JavaScript is on the page.
    ///
    /// # Errors
    /// See [`BrowserError`].
    pub async fn evaluate(&mut self, expression: &str) -> Result<Value, BrowserError> {
        let asked = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let mut answer = self.call("Runtime.evaluate", asked).await?;
        if answer.get("exceptionDetails").is_some() {
            return Err(BrowserError::Refused { method: expression.to_owned(), answer });
        }
        Ok(answer.pointer_mut("/result/value").map(Value::take).unwrap_or_default())
    }

    /// Waits until an expression is true on the page.
    ///
    /// # Errors
    /// It never is; or see [`BrowserError`].
    pub async fn until(&mut self, expression: &str, patience: Duration) -> Result<(), BrowserError> {
        let deadline = Instant::now() + patience;
        loop {
            match self.evaluate(expression).await {
                Ok(Value::Bool(true)) => return Ok(()),
                // The page is another one by now, or has not yet what the expression is about.
                Ok(_) | Err(BrowserError::Refused { .. }) => {}
                Err(error) => return Err(error),
            }
            if Instant::now() >= deadline {
                let shown = self.evaluate("document.body ? document.body.innerText : ''").await?;
                let shown = shown.as_str().unwrap_or_default().to_owned();
                return Err(BrowserError::NeverSo { expression: expression.to_owned(), shown });
            }
            sleep(LOOK_INTERVAL).await;
        }
    }

    /// A picture of the page from its top, as high as the viewport, as PNG.
    ///
    /// # Errors
    /// See [`BrowserError`].
    pub async fn picture(&mut self) -> Result<Vec<u8>, BrowserError> {
        let asked = json!({"format": "png", "optimizeForSpeed": false});
        let answer = self.call("Page.captureScreenshot", asked).await?;
        let data = STANDARD.decode(answer.get("data").and_then(Value::as_str).unwrap_or_default());
        data.map_err(|error| BrowserError::Io(std::io::Error::other(error)))
    }

    /// Everything that was asked for since the start: URLs.
    #[must_use]
    pub fn requests(&self) -> &[String] {
        &self.requests
    }

    /// What the browser has complained of: exceptions, errors on its console, what it was not allowed to do.
    #[must_use]
    pub fn complaints(&self) -> &[String] {
        &self.complaints
    }

    /// Ends it.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub async fn stop(mut self) -> Result<(), BrowserError> {
        self.session = None;
        // It may end before it has answered.
        let _ended = self.call("Browser.close", json!({})).await;
        if timeout(END_PATIENCE, self.child.wait()).await.is_err() {
            self.child.kill().await?;
        }
        Ok(())
    }

    /// Asks something of the browser, or of its page when there is one.
    async fn call(&mut self, method: &str, params: Value) -> Result<Value, BrowserError> {
        self.last_id += 1;
        let message = match &self.session {
            Some(session) => {
                json!({"id": self.last_id, "method": method, "params": params, "sessionId": session})
            }
            None => json!({"id": self.last_id, "method": method, "params": params}),
        };
        let mut bytes = serde_json::to_vec(&message)?;
        bytes.push(0);
        let conversation = async {
            self.to.write_all(&bytes).await?;
            self.answer(method).await
        };
        let answered = timeout(ANSWER_PATIENCE, conversation).await;
        answered.unwrap_or_else(|_| Err(BrowserError::Silent { method: method.to_owned() }))
    }

    async fn answer(&mut self, method: &str) -> Result<Value, BrowserError> {
        loop {
            let mut bytes = Vec::new();
            let read = (&mut self.from).take(MESSAGE_BYTES_MAX).read_until(0, &mut bytes).await?;
            if read == 0 || bytes.pop() != Some(0) {
                return Err(BrowserError::Ended { method: method.to_owned() });
            }
            let mut message: Value = serde_json::from_slice(&bytes)?;
            if message.get("id").and_then(Value::as_u64) != Some(self.last_id) {
                self.notice(&message);
            } else if message.get("error").is_some() {
                return Err(BrowserError::Refused { method: method.to_owned(), answer: message });
            } else {
                return Ok(message.get_mut("result").map(Value::take).unwrap_or_default());
            }
        }
    }

    fn notice(&mut self, event: &Value) {
        let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str);
        match text("/method") {
            Some("Network.requestWillBeSent") => {
                self.requests.extend(text("/params/request/url").map(str::to_owned));
            }
            Some("Runtime.exceptionThrown") => self.complaints.push(event.to_string()),
            Some("Log.entryAdded") if text("/params/entry/level") == Some("error") => {
                self.complaints.push(event.to_string());
            }
            _ => {}
        }
    }
}

fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let directories: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let of =
        |name: &str| directories.iter().map(|directory| directory.join(name)).find(|file| file.is_file());
    PROGRAMS.into_iter().find_map(of)
}
