//! Carries requests to the servers that have their keys, and brings back an answer for each of them.
//!
//! Servers are sent to side by side, each in pipelines of bounded size, one after the other, so that what is asked
//! of one key keeps its order. Each answer is looked at by itself. A request that is sent elsewhere (MOVED, ASK)
//! goes there in the next round; what has no answer in the end is unavailable: it may or may not have been carried
//! out, and is never taken for done.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_util::future::join_all;
use redis::{Pipeline, Value};
use tokio::time::Instant;

use crate::{
    call::{Call, ServerView},
    config::Address,
    node::{Link, Node, Purpose},
    nodes::{Map, Nodes},
    outcome::CacheError,
    reply::Verdict,
    script::Script,
    server_clock::Sample,
};

/// How often a request may be sent elsewhere. In a cluster that is at rest it is once; each move of its slot in the
/// meantime adds one.
const REDIRECTS_MAX: usize = 5;

/// How old what is known of a server may be when calls are written by it. The margin of a backfill counts on it: the
/// script keeps it so much later than the last eviction.
const VIEW_AGE_MAX: Duration = Duration::from_secs(5);

/// How often the scripts are loaded again for one pipeline. A server that loses them once has restarted; one that
/// loses them at once again is not worth a loop.
const SCRIPT_LOADS_MAX: usize = 2;

/// Requests, each for one key.
pub(crate) trait Requests {
    /// How many.
    fn len(&self) -> usize;
    /// The key of one.
    fn key(&self, index: usize) -> &[u8];
    /// About the bytes that one takes in a pipeline; never fewer.
    fn len_max(&self, index: usize) -> usize;
    /// Appends one, as one command.
    fn write(&self, index: usize, view: &ServerView, pipeline: &mut Pipeline);
    /// When none of them may land any more; none: they have no deadline.
    fn deadline(&self) -> Option<Instant>;
    /// The server that one goes to in this round; none: no server has its key.
    fn target<'m>(&self, map: &'m Map, index: usize, round: usize) -> Option<&'m Arc<Node>>;
    /// Whether what a server did not answer in this round has another server to go to in the next one.
    fn has_other_target(&self, round: usize) -> bool;
}

/// Calls of scripts.
struct Calls<'c, 'a> {
    calls: &'c [Call<'a>],
    deadline: Instant,
}

impl Requests for Calls<'_, '_> {
    fn len(&self) -> usize {
        self.calls.len()
    }

    fn key(&self, index: usize) -> &[u8] {
        self.calls.get(index).map_or(&[], |call| &call.key)
    }

    fn len_max(&self, index: usize) -> usize {
        self.calls.get(index).map_or(0, Call::len_max)
    }

    fn write(&self, index: usize, view: &ServerView, pipeline: &mut Pipeline) {
        if let Some(call) = self.calls.get(index) {
            call.write(view, pipeline);
        }
    }

    fn deadline(&self) -> Option<Instant> {
        Some(self.deadline)
    }

    fn target<'m>(&self, map: &'m Map, index: usize, _round: usize) -> Option<&'m Arc<Node>> {
        Some(&map.shard_of(self.key(index))?.primary)
    }

    fn has_other_target(&self, _round: usize) -> bool {
        false
    }
}

/// One request that has no answer yet.
#[derive(Clone)]
struct Pending {
    index: usize,
    /// The server that it was sent to by another one.
    sent_to: Option<Arc<Node>>,
    /// The server takes it only if it is told that this is no mistake (ASKING).
    asking: bool,
}

/// What became of one request in one round.
enum Step {
    Answered(Result<Value, CacheError>),
    /// To another server, in the next round.
    Elsewhere {
        to: Address,
        asking: bool,
    },
    /// The server has no answer. It may have carried the request out.
    Unanswered(CacheError),
}

/// What is sent to one server in one round.
struct Group<'r, R> {
    requests: &'r R,
    node: Arc<Node>,
    pending: Vec<Pending>,
}

/// When the requests were given to us, on two clocks: one stands still while the machine is suspended.
#[derive(Clone, Copy)]
struct Start {
    monotonic: Instant,
    wall: SystemTime,
}

impl Start {
    fn now() -> Self {
        Self { monotonic: Instant::now(), wall: SystemTime::now() }
    }

    /// For how long the monotonic clock stood still since.
    fn suspended(self) -> Duration {
        let wall = self.wall.elapsed().unwrap_or_default();
        wall.saturating_sub(self.monotonic.elapsed())
    }
}

impl Nodes {
    /// Carries out calls of scripts; none of them lands after the deadline. One answer for each call, in their
    /// order: the script's, or why there is none.
    pub(crate) async fn send(&self, calls: &[Call<'_>], deadline: Instant) -> Vec<Result<Value, CacheError>> {
        self.carry(&Calls { calls, deadline }).await
    }

    /// Carries out requests. One answer for each, in their order.
    pub(crate) async fn carry<R: Requests>(&self, requests: &R) -> Vec<Result<Value, CacheError>> {
        let start = Start::now();
        let mut answers: Answers = vec![None; requests.len()];
        let mut pending: Vec<Pending> =
            (0..requests.len()).map(|index| Pending { index, sent_to: None, asking: false }).collect();
        for round in 0..=REDIRECTS_MAX {
            if pending.is_empty() {
                break;
            }
            let map = self.current_map().await;
            let groups = self.group(requests, &map, pending, round, &mut answers);
            let sent = join_all(groups.iter().map(|group| self.send_group(group, start))).await;
            let steps = groups.into_iter().flat_map(|group| group.pending).zip(sent.into_iter().flatten());
            let is_last = !requests.has_other_target(round);
            pending = self.advance(&map, steps, is_last, &mut answers).await;
        }
        let lost = || unavailable(&self.config().servers.to_string(), "it was sent from server to server");
        answers.into_iter().map(|answer| answer.unwrap_or_else(|| Err(lost()))).collect()
    }

    /// By server, in the requests' order.
    fn group<'r, R: Requests>(
        &self,
        requests: &'r R,
        map: &Map,
        pending: Vec<Pending>,
        round: usize,
        answers: &mut Answers,
    ) -> Vec<Group<'r, R>> {
        let mut groups: BTreeMap<Address, Group<'r, R>> = BTreeMap::new();
        for request in pending {
            let index = request.index;
            let target = request.sent_to.as_ref().or_else(|| requests.target(map, index, round));
            let Some(node) = target.or_else(|| self.anybody(map, index)) else {
                let name = self.config().servers.to_string();
                set(answers, index, Err(unavailable(&name, "it has no servers")));
                continue;
            };
            match groups.get_mut(node.address()) {
                Some(group) => group.pending.push(request),
                None => {
                    let node = Arc::clone(node);
                    groups.insert(node.address().clone(), Group { requests, node, pending: vec![request] });
                }
            }
        }
        groups.into_values().collect()
    }

    /// Some primary, for a key that nobody has as far as is known: it knows who has it, or says that nobody does.
    fn anybody<'m>(&self, map: &'m Map, index: usize) -> Option<&'m Arc<Node>> {
        self.suspect();
        let turn = index % map.shards().len().max(1);
        Some(&map.shards().get(turn)?.primary)
    }

    /// Keeps the answers, and says what is sent in the next round, in the requests' order.
    async fn advance(
        &self,
        map: &Map,
        steps: impl Iterator<Item = (Pending, Step)>,
        is_last: bool,
        answers: &mut Answers,
    ) -> Vec<Pending> {
        let mut next = Vec::new();
        let mut elsewhere = Vec::new();
        for (request, step) in steps {
            let index = request.index;
            match step {
                Step::Answered(answer) => set(answers, index, answer),
                Step::Elsewhere { to, asking } => elsewhere.push((index, to, asking)),
                Step::Unanswered(error) => {
                    // Its answer, unless another server gives a better one.
                    set(answers, index, Err(error));
                    if !is_last {
                        next.push(Pending { index, sent_to: None, asking: false });
                    }
                }
            }
        }
        if elsewhere.iter().any(|(_, _, asking)| !asking) {
            // So that it is known how the other server came by its keys, before it is written to.
            self.suspect();
            self.look_up(map.version()).await;
        }
        for (index, to, asking) in elsewhere {
            next.push(Pending { index, sent_to: Some(self.node(&to)), asking });
        }
        next.sort_by_key(|request| request.index);
        next
    }

    /// One step for each request, in their order.
    async fn send_group<R: Requests>(&self, group: &Group<'_, R>, start: Start) -> Vec<Step> {
        let (node, len) = (&group.node, group.pending.len());
        let mut steps = Vec::with_capacity(len);
        let failure = match self.link(node).await {
            Ok(link) => {
                let sent = match self.refresh_view(group, &link).await {
                    Ok(()) => self.send_over(group, &link, start, &mut steps).await,
                    Err(reason) => Err(reason),
                };
                if sent.is_err() {
                    node.give_up(&link);
                    self.suspect();
                }
                sent.err()
            }
            Err(error) => Some(error.to_string()),
        };
        if let Some(reason) = failure {
            tracing::debug!(address = %node.name(), %reason, "a server of the cache is unavailable");
            let error = unavailable(node.name(), &reason);
            steps.resize_with(len, || Step::Unanswered(error.clone()));
        }
        steps
    }

    /// Looks at the server again if what is known of it is old: nobody watches, or cannot.
    async fn refresh_view<R: Requests>(&self, group: &Group<'_, R>, link: &Link) -> Result<(), String> {
        let is_old = group.node.sample_age().is_none_or(|age| age > VIEW_AGE_MAX);
        if self.purpose() == Purpose::Write && is_old {
            self.sample(&group.node, link).await.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Sends pipeline after pipeline over one connection; the error is why the connection is of no more use.
    async fn send_over<R: Requests>(
        &self,
        group: &Group<'_, R>,
        link: &Link,
        start: Start,
        steps: &mut Vec<Step>,
    ) -> Result<(), String> {
        let mut rest = group.pending.as_slice();
        while !rest.is_empty() {
            let (sent, later) = rest.split_at(self.fitting(group.requests, rest));
            rest = later;
            let verdicts = self.send_pipeline(group, link, start, sent).await?;
            let mut demoted = None;
            for verdict in verdicts {
                if let Verdict::ReadOnly(reason) = &verdict {
                    demoted = Some(reason.clone());
                }
                steps.push(self.step(&group.node, verdict));
            }
            if let Some(reason) = demoted {
                group.node.distrust();
                return Err(reason);
            }
        }
        Ok(())
    }

    /// How many of these go into one pipeline: at least one.
    fn fitting(&self, requests: &impl Requests, pending: &[Pending]) -> usize {
        let (entries_max, bytes_max) = (self.config().pipeline_entries_max, self.config().pipeline_bytes_max);
        let mut bytes = 0;
        let fits = |request: &&Pending| {
            bytes += requests.len_max(request.index);
            bytes <= bytes_max
        };
        pending.iter().take(entries_max).take_while(fits).count().max(1)
    }

    /// Sends one pipeline, and those of its requests again that met a server without the script.
    async fn send_pipeline<R: Requests>(
        &self,
        group: &Group<'_, R>,
        link: &Link,
        start: Start,
        sent: &[Pending],
    ) -> Result<Vec<Verdict>, String> {
        let mut verdicts = exchange(group, link, (start, self.loss_ms()), sent, false).await?;
        for _ in 0..SCRIPT_LOADS_MAX {
            let without_script: Vec<usize> = (0..verdicts.len())
                .filter(|index| verdicts.get(*index) == Some(&Verdict::NoScript))
                .collect();
            if without_script.is_empty() {
                break;
            }
            let again: Vec<Pending> =
                without_script.iter().filter_map(|index| sent.get(*index).cloned()).collect();
            let answered = exchange(group, link, (start, self.loss_ms()), &again, true).await?;
            for (index, verdict) in without_script.into_iter().zip(answered) {
                if let Some(place) = verdicts.get_mut(index) {
                    *place = verdict;
                }
            }
        }
        Ok(verdicts)
    }

    fn step(&self, node: &Arc<Node>, verdict: Verdict) -> Step {
        let elsewhere = |to: Address, asking| Step::Elsewhere { to, asking };
        match verdict {
            Verdict::Answer(value) => Step::Answered(Ok(value)),
            Verdict::Moved(redirect) => elsewhere(redirect.address(node.address()), false),
            Verdict::Ask(redirect) => elsewhere(redirect.address(node.address()), true),
            Verdict::Unavailable(reason) => {
                if reason.starts_with("CLUSTERDOWN") {
                    self.suspect();
                }
                Step::Unanswered(unavailable(node.name(), &reason))
            }
            Verdict::ReadOnly(reason) => Step::Unanswered(unavailable(node.name(), &reason)),
            Verdict::NoScript => Step::Unanswered(unavailable(
                node.name(),
                &format!("it lost the scripts {SCRIPT_LOADS_MAX} times right after they were loaded"),
            )),
            Verdict::Refused(refusal) => {
                Step::Answered(Err(CacheError::Refused { address: Arc::clone(node.name()), refusal }))
            }
        }
    }
}

/// One round trip: the server's time, the scripts where they are missing, the requests.
async fn exchange<R: Requests>(
    group: &Group<'_, R>,
    link: &Link,
    (start, loss_ms): (Start, u64),
    sent: &[Pending],
    load_scripts: bool,
) -> Result<Vec<Verdict>, String> {
    let deadline = group.requests.deadline();
    // By the samples before this round trip: see `server_clock`.
    let deadline_ms = deadline.map_or(0, |deadline| {
        let suspended_ms = u64::try_from(start.suspended().as_millis()).unwrap_or(u64::MAX);
        link.clock.at(deadline).saturating_sub(suspended_ms)
    });
    let view = group.node.view(deadline_ms, loss_ms);
    let mut pipeline = Pipeline::with_capacity(sent.len() + 1);
    if deadline.is_some() {
        pipeline.cmd("TIME");
    }
    if load_scripts {
        for script in Script::ALL {
            pipeline.cmd("SCRIPT").arg("LOAD").arg(script.source());
        }
    }
    let preamble = pipeline.len();
    for request in sent {
        if request.asking {
            pipeline.cmd("ASKING");
        }
        group.requests.write(request.index, &view, &mut pipeline);
    }
    let answers = link.exchange(&pipeline).await?;
    if deadline.is_some()
        && let Some(sample) = answers.first().and_then(Sample::read)
    {
        link.clock.record(sample);
    }
    let mut answers = answers.into_iter().skip(preamble);
    let mut answer = |request: &Pending| {
        if request.asking {
            answers.next();
        }
        answers.next()
    };
    // As many answers as commands have come.
    Ok(sent.iter().filter_map(|request| answer(request).map(Verdict::read)).collect())
}

type Answers = Vec<Option<Result<Value, CacheError>>>;

fn set(answers: &mut Answers, index: usize, answer: Result<Value, CacheError>) {
    if let Some(place) = answers.get_mut(index) {
        *place = Some(answer);
    }
}

fn unavailable(address: &str, reason: &str) -> CacheError {
    CacheError::Unavailable { address: address.into(), reason: reason.into() }
}
