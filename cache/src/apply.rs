//! Applying changes: each is written if it is newer than what the cache holds, and gets an answer of its own.
//!
//! What this gives: applying a change twice, late, or after a newer one does no harm (rule 1 of the cache
//! protocol), so whoever is in doubt applies again. What it asks for: an answer of [`ApplyError::Unavailable`] is
//! no answer. The change may or may not have been applied, and must be applied again before it is acknowledged.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use redis::Value;
use warmcast_proto::change::Change;

use crate::{
    command::{APPLY_SCRIPT, ApplyCommand, pipelines},
    config::CacheConfig,
    connection::{ConnectError, Open, Purpose, Slot, describe_failure},
    outcome::{ApplyError, Outcome, Refusal},
    reply::Reply,
    server_clock::{Sample, ServerClock},
};

/// How often the script is loaded again within one pipeline. A server that loses it once has restarted; one that
/// loses it at once again is not worth a loop.
const SCRIPT_LOADS_MAX: usize = 2;

/// Applies changes to one cache. Clones share its connections; calls may be concurrent.
#[derive(Clone)]
pub struct Applier {
    shared: Arc<Shared>,
}

struct Shared {
    config: Arc<CacheConfig>,
    address: Arc<str>,
    script_sha: String,
    clock: ServerClock,
    slots: Vec<Slot>,
    calls: AtomicUsize,
}

impl Applier {
    /// Opens the first connection, and finds out whether the server can be used: address, credentials, rights,
    /// role. The other connections are opened by the calls that need them.
    ///
    /// # Errors
    /// The server cannot be used; the error says what to do about it.
    pub async fn connect(config: CacheConfig) -> Result<Self, ConnectError> {
        let config = Arc::new(config);
        let mut slots = Vec::new();
        for _ in 0..config.connections.max(1) {
            slots.push(Slot::new(Arc::clone(&config), Purpose::Apply)?);
        }
        let no_clock = || ConnectError::Setup {
            address: config.address.clone(),
            reason: "the server does not tell the time".to_owned(),
        };
        let (_, sample) = slots.first().ok_or_else(no_clock)?.open().await?;
        let clock = ServerClock::new(sample.ok_or_else(no_clock)?);
        let address = config.address.to_string().into();
        let script_sha = redis::Script::new(APPLY_SCRIPT).get_hash().to_owned();
        let calls = AtomicUsize::new(0);
        Ok(Self { shared: Arc::new(Shared { config, address, script_sha, clock, slots, calls }) })
    }

    /// Applies changes in their order, in pipelines, and gives one answer for each, in the same order.
    ///
    /// The whole call has one deadline (`apply_deadline` from its start), so that a process that is stopped in the
    /// middle of it and resumed lands nothing more: give it what takes the server a fraction of that. What comes late is answered with [`ApplyError::PastDeadline`].
    ///
    /// A call goes through one connection; concurrent calls spread over all of them. When the connection
    /// fails, the rest of the call is answered at once with [`ApplyError::Unavailable`], and the next call
    /// connects again: waiting between calls is the caller's part. Dropping the call's future may leave changes
    /// applied; applying them again is harmless.
    pub async fn apply(&self, changes: &[Change]) -> Vec<Result<Outcome, ApplyError>> {
        self.shared.apply(changes).await
    }
}

impl Shared {
    async fn apply(&self, changes: &[Change]) -> Vec<Result<Outcome, ApplyError>> {
        // Nothing is taken for done: what has no answer in the end is unavailable.
        let mut answers = vec![None; changes.len()];
        let mut commands = Vec::with_capacity(changes.len());
        for ((index, change), answer) in changes.iter().enumerate().zip(&mut answers) {
            match ApplyCommand::new(index, change, &self.config) {
                Ok(command) => commands.push(command),
                Err(refusal) => *answer = Some(Err(self.refused(refusal))),
            }
        }
        let mut reason: Arc<str> = "no answer".into();
        if let Err(failure) = self.send_all(&commands, &mut answers).await {
            tracing::debug!(address = %self.address, reason = %failure, "cache unavailable");
            reason = failure.into();
        }
        let unavailable =
            || ApplyError::Unavailable { address: Arc::clone(&self.address), reason: Arc::clone(&reason) };
        answers.into_iter().map(|answer| answer.unwrap_or_else(|| Err(unavailable()))).collect()
    }

    /// Sends pipeline after pipeline over one connection; the error is why the rest was not sent.
    async fn send_all(
        &self,
        commands: &[ApplyCommand<'_>],
        answers: &mut [Option<Result<Outcome, ApplyError>>],
    ) -> Result<(), String> {
        let turn = self.calls.fetch_add(1, Ordering::Relaxed) % self.slots.len();
        let Some(slot) = self.slots.get(turn).filter(|_| !commands.is_empty()) else {
            return Ok(());
        };
        let (mut open, sample) = slot.open().await.map_err(|error| error.to_string())?;
        if let Some(sample) = sample {
            self.clock.record(sample);
        }
        let deadline_ms = self.clock.after(self.config.apply_deadline);
        for pipeline in pipelines(commands, &self.config) {
            if let Err(failure) = self.send(&mut open, pipeline, deadline_ms, answers).await {
                slot.give_up(&open).await;
                return Err(failure);
            }
        }
        Ok(())
    }

    /// Sends one pipeline, and those of its commands again that met a server without the script.
    async fn send(
        &self,
        open: &mut Open,
        commands: &[ApplyCommand<'_>],
        deadline_ms: u64,
        answers: &mut [Option<Result<Outcome, ApplyError>>],
    ) -> Result<(), String> {
        let mut pending: Vec<&ApplyCommand<'_>> = commands.iter().collect();
        for script_loads in 0..=SCRIPT_LOADS_MAX {
            let replies = self.exchange(open, &pending, deadline_ms, script_loads > 0).await?;
            let mut without_script = Vec::new();
            for (command, reply) in pending.into_iter().zip(replies) {
                let answer = match reply {
                    Reply::Outcome(outcome) => Ok(outcome),
                    Reply::PastDeadline => {
                        Err(ApplyError::PastDeadline { address: Arc::clone(&self.address) })
                    }
                    Reply::Refused(refusal) => Err(self.refused(refusal)),
                    Reply::Unavailable(reason) => Err(ApplyError::Unavailable {
                        address: Arc::clone(&self.address),
                        reason: reason.into(),
                    }),
                    Reply::NoScript => {
                        without_script.push(command);
                        continue;
                    }
                };
                if let Some(place) = answers.get_mut(command.index) {
                    *place = Some(answer);
                }
            }
            if without_script.is_empty() {
                return Ok(());
            }
            pending = without_script;
        }
        Err(format!("it lost the apply script {SCRIPT_LOADS_MAX} times right after it was loaded"))
    }

    /// One round trip: the server's time, the script where it is missing, the commands.
    async fn exchange(
        &self,
        open: &mut Open,
        commands: &[&ApplyCommand<'_>],
        deadline_ms: u64,
        load_script: bool,
    ) -> Result<Vec<Reply>, String> {
        let mut pipeline = redis::Pipeline::with_capacity(commands.len() + 2);
        pipeline.cmd("TIME");
        if load_script {
            pipeline.cmd("SCRIPT").arg("LOAD").arg(APPLY_SCRIPT);
        }
        let preamble = pipeline.len();
        for command in commands {
            command.write(&self.script_sha, deadline_ms, &mut pipeline);
        }
        // Not `query_async`: it gives up all answers for one error among them.
        let answers: Vec<Value> = open
            .connection
            .send_packed_commands(&pipeline, 0, pipeline.len())
            .await
            .map_err(|error| describe_failure(&error))?;
        if answers.len() != pipeline.len() {
            return Err(format!("{} answers to {} commands", answers.len(), pipeline.len()));
        }
        if let Some(sample) = answers.first().and_then(Sample::read) {
            self.clock.record(sample);
        }
        Ok(answers.iter().skip(preamble).map(Reply::read).collect())
    }

    fn refused(&self, refusal: Refusal) -> ApplyError {
        ApplyError::Refused { address: Arc::clone(&self.address), refusal }
    }
}
