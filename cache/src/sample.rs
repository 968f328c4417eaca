//! What is sampled of a primary, and what follows from two samples. Pure.
//!
//! Two things make "the cache has no entry" or "the cache has this entry" untrue. Floors are lost by evictions: that
//! moves the loss horizon, before which a change may not create an entry. And the data itself may go back: a replica
//! takes over that has not got the latest writes yet, the server restarts with older data, or empty. That is a new
//! *epoch*, in which the changes of the last minutes are delivered again.
//!
//! Each primary holds a marker: a key that names the server that has the data, the epoch that the data belongs to, and
//! what is known of evictions. It goes where the data goes: a marker that is gone, or that names another server, tells
//! that the data may have gone back. Whoever finds that writes a new epoch, and all others read it there, however much
//! later they look. Slots that move from one primary of a cluster to another, both being there before and after, take
//! their epoch along: nothing has gone back.

use redis::Value;

use crate::topology::slot_of;

/// How many names of a marker are tried until one belongs to a slot of the primary. One of 16,384 slots is found in
/// this many with near certainty.
const MARKER_NAMES_MAX: u32 = 250_000;

/// What one look at a primary tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sample {
    /// The server's process since it last became a primary; none: the server does not tell.
    pub(crate) identity: Option<String>,
    /// How many keys it has evicted so far; none: the server does not tell.
    pub(crate) evicted_keys: Option<u64>,
    /// It may evict keys.
    pub(crate) evicts: bool,
    /// It is a replica.
    pub(crate) is_replica: bool,
    /// How often this process lost a connection to it. Where the server does not say who it is, each time may have
    /// been the end of it.
    pub(crate) connections_lost: u64,
    /// Its clock, after all of the above.
    pub(crate) server_ms: u64,
}

impl Sample {
    /// Reads the texts that INFO gave (sections `server`, `replication`, `stats` and `memory`, in any number of
    /// parts), and what ROLE said.
    pub(crate) fn read(info: &[&str], is_replica: bool, connections_lost: u64, server_ms: u64) -> Self {
        let field = |name: &str| {
            info.iter()
                .flat_map(|text| text.lines())
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
                .map(str::trim_end)
        };
        // A server that was primary, then replica, then primary again has the run id of before, but other data.
        // Its second replication id is that of the primary it followed (Redis: INFO, master_replid2).
        let promoted = field("master_replid2").filter(|id| id.bytes().any(|digit| digit != b'0'));
        let run_id = field("run_id").filter(|id| !id.is_empty());
        Self {
            identity: run_id.map(|run_id| match promoted {
                Some(promoted) => format!("{run_id}:{promoted}"),
                None => run_id.to_owned(),
            }),
            evicted_keys: field("evicted_keys").and_then(|count| count.parse().ok()),
            evicts: field("maxmemory_policy").is_none_or(|policy| policy != "noeviction"),
            is_replica: is_replica || field("role").is_some_and(|role| role == "slave"),
            connections_lost,
            server_ms,
        }
    }
}

/// What a primary's marker says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Marker {
    /// Who has the data.
    pub(crate) identity: String,
    /// The epoch that the data belongs to: a word that was never used before.
    pub(crate) epoch: String,
    /// How many keys the server had evicted when the loss horizon was reckoned.
    pub(crate) evicted_keys: u64,
    /// The loss horizon; 0: nothing was ever evicted.
    pub(crate) loss_ms: u64,
}

impl Marker {
    /// The key of the marker of the primary that has the slots that `is_own` names; none: all keys of this prefix
    /// belong to other primaries.
    pub(crate) fn key(prefix: &str, is_own: impl Fn(u16) -> bool) -> Option<Vec<u8>> {
        let key = |number: u32| format!("{prefix}warmcast:marker:{{{number}}}").into_bytes();
        let slot = |number: u32| slot_of(&key(number));
        // A prefix with a hash tag of its own decides the slot of all keys.
        let all_alike = slot(0) == slot(1) && slot(1) == slot(2);
        let mut numbers = if all_alike { 0..1 } else { 0..MARKER_NAMES_MAX };
        numbers.find(|number| is_own(slot(*number))).map(key)
    }

    /// None: somebody else's text.
    pub(crate) fn read(text: &[u8]) -> Option<Self> {
        let mut fields = str::from_utf8(text).ok()?.split(' ');
        let marker = Self {
            identity: fields.next()?.to_owned(),
            epoch: fields.next()?.to_owned(),
            evicted_keys: fields.next()?.parse().ok()?,
            loss_ms: fields.next()?.parse().ok()?,
        };
        fields.next().is_none().then_some(marker)
    }

    pub(crate) fn write(&self) -> String {
        format!("{} {} {} {}", self.identity, self.epoch, self.evicted_keys, self.loss_ms)
    }
}

/// What was found under the marker's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum MarkerRead {
    /// It could not be asked for, or something else is there.
    Unread,
    /// Nothing.
    Missing,
    /// A marker.
    Found(Marker),
}

impl MarkerRead {
    pub(crate) fn read(answer: Option<&Value>) -> Self {
        match answer {
            Some(Value::Nil) => Self::Missing,
            Some(Value::BulkString(text)) => Marker::read(text).map_or(Self::Unread, Self::Found),
            _ => Self::Unread,
        }
    }
}

/// What is known of a primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) sample: Sample,
    /// The epoch of its data.
    pub(crate) epoch: String,
    /// The last time, on a server's clock, at which this cache may have evicted a floor; 0: never.
    pub(crate) loss_ms: u64,
    /// Where its marker was seen, or written.
    pub(crate) marker_key: Option<Vec<u8>>,
}

impl Known {
    /// The server may be another one, or its data: as far as it tells, and as far as connections tell.
    fn may_be_another(&self, sample: &Sample) -> bool {
        self.sample.identity != sample.identity
            || (sample.identity.is_none() && self.sample.connections_lost != sample.connections_lost)
    }
}

/// What a look at a primary is judged by.
pub(crate) struct Look<'l> {
    /// What was known before.
    pub(crate) previous: Option<&'l Known>,
    pub(crate) sample: Sample,
    /// Where its marker has to be; none: the cache has no keys there.
    pub(crate) marker_key: Option<&'l [u8]>,
    pub(crate) found: &'l MarkerRead,
    /// The epoch of the primary that gave this one keys, or its marker, and is still there; none: there is none.
    pub(crate) given_epoch: Option<String>,
    /// The latest loss horizon that is known of any primary of this cache.
    pub(crate) loss_ms: u64,
    /// A word that was never used before.
    pub(crate) new_epoch: String,
}

/// Judges a look: what is known now, and what is to be written as the marker, if that is still as it was found.
/// Another process may be faster: then what that one has written counts.
pub(crate) fn judge(look: Look<'_>) -> (Known, Option<Marker>) {
    let (epoch, loss_ms, is_marked) = match &look.sample {
        Sample { identity: Some(identity), evicted_keys: Some(evicted_keys), .. } => {
            let (epoch, loss_ms) = look.epoch_and_loss(identity, *evicted_keys);
            let marker = Marker { identity: identity.clone(), epoch, evicted_keys: *evicted_keys, loss_ms };
            let is_written = match look.found {
                MarkerRead::Found(found) => *found != marker,
                MarkerRead::Missing => look.marker_key.is_some(),
                MarkerRead::Unread => false,
            };
            (marker.epoch.clone(), loss_ms, is_written.then_some(marker))
        }
        // Whoever is not told enough leaves the marker to those who are.
        sample => (look.untold_epoch(sample), look.loss_ms, None),
    };
    let marker_key = match look.found {
        MarkerRead::Found(_) => look.marker_key.map(<[u8]>::to_vec),
        // Until it is written.
        MarkerRead::Missing => None,
        MarkerRead::Unread => look.previous.and_then(|previous| previous.marker_key.clone()),
    };
    (Known { sample: look.sample, epoch, loss_ms, marker_key }, is_marked)
}

impl Look<'_> {
    /// For a server that tells who it is and what it evicted.
    fn epoch_and_loss(&self, identity: &str, evicted_keys: u64) -> (String, u64) {
        let goes_on = self.previous.filter(|previous| !previous.may_be_another(&self.sample));
        // What it evicted since this process looked last, or ever.
        let evicted = match goes_on {
            Some(previous) => previous.sample.evicted_keys != Some(evicted_keys),
            None => evicted_keys > 0,
        };
        let now_ms = self.sample.server_ms;
        let loss_if = |evicted: bool| if evicted { now_ms.max(self.loss_ms) } else { self.loss_ms };
        match self.found {
            MarkerRead::Found(found) if found.identity == identity => {
                let loss_ms = loss_if(found.evicted_keys != evicted_keys);
                (found.epoch.clone(), loss_ms.max(found.loss_ms))
            }
            MarkerRead::Found(found) => {
                let loss_ms = self.loss_ms.max(found.loss_ms);
                match (&self.given_epoch, goes_on) {
                    // The slot of another primary's marker has moved to this one.
                    (Some(_), Some(previous)) => (previous.epoch.clone(), loss_ms.max(loss_if(evicted))),
                    (Some(given), None) => (given.clone(), loss_ms.max(loss_if(evicted))),
                    // The horizon is not moved: what is delivered again in a new epoch makes the floors anew.
                    (None, _) => (self.new_epoch.clone(), loss_ms),
                }
            }
            MarkerRead::Missing => match (goes_on, &self.given_epoch) {
                // The marker's slot has moved away, or it could not be written yet.
                (Some(previous), _) if previous.marker_key.as_deref() != self.marker_key => {
                    (previous.epoch.clone(), loss_if(evicted))
                }
                (None, Some(given)) => (given.clone(), loss_if(evicted)),
                _ => (self.new_epoch.clone(), self.loss_ms),
            },
            // Without a marker this process knows what it has seen itself.
            MarkerRead::Unread => match goes_on {
                Some(previous) => (previous.epoch.clone(), loss_if(evicted)),
                None => (identity.to_owned(), loss_if(self.sample.evicts || evicted)),
            },
        }
    }

    /// For a server that does not tell: it may be another one after each connection that was lost.
    fn untold_epoch(&self, sample: &Sample) -> String {
        let marked = match self.found {
            MarkerRead::Found(found) => found.epoch.as_str(),
            MarkerRead::Missing | MarkerRead::Unread => "",
        };
        match &sample.identity {
            Some(identity) => format!("{marked}-{identity}"),
            None => format!("{marked}-{}", sample.connections_lost),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &[u8] = b"marker";

    fn sample(identity: &str, evicted_keys: u64, server_ms: u64) -> Sample {
        Sample {
            identity: (!identity.is_empty()).then(|| identity.to_owned()),
            evicted_keys: Some(evicted_keys),
            evicts: false,
            is_replica: false,
            connections_lost: 0,
            server_ms,
        }
    }

    fn marker(identity: &str, epoch: &str, evicted_keys: u64, loss_ms: u64) -> Marker {
        Marker { identity: identity.to_owned(), epoch: epoch.to_owned(), evicted_keys, loss_ms }
    }

    fn known(sample: Sample, epoch: &str, loss_ms: u64) -> Known {
        Known { sample, epoch: epoch.to_owned(), loss_ms, marker_key: Some(KEY.to_vec()) }
    }

    fn found(identity: &str, epoch: &str, evicted_keys: u64, loss_ms: u64) -> MarkerRead {
        MarkerRead::Found(marker(identity, epoch, evicted_keys, loss_ms))
    }

    /// The epoch, the loss horizon, and the marker that is written.
    type Judged = (String, u64, Option<Marker>);

    fn look<'l>(previous: Option<&'l Known>, sample: Sample, found: &'l MarkerRead) -> Look<'l> {
        let (marker_key, new_epoch) = (Some(KEY), "new".to_owned());
        Look { previous, sample, marker_key, found, given_epoch: None, loss_ms: 0, new_epoch }
    }

    fn judged(look: Look<'_>) -> Judged {
        let (known, marker) = judge(look);
        (known.epoch, known.loss_ms, marker)
    }

    fn expect(epoch: &str, loss_ms: u64, marker: Option<Marker>) -> Judged {
        (epoch.to_owned(), loss_ms, marker)
    }

    #[test]
    fn nothing_follows_from_a_primary_that_goes_on() {
        let found = found("a", "e1", 3, 500);
        let previous = known(sample("a", 3, 1_000), "e1", 500);
        for previous in [Some(&previous), None] {
            assert_eq!(judged(look(previous, sample("a", 3, 2_000), &found)), expect("e1", 500, None));
        }
        // What another primary evicted counts for all: slots move.
        let look = Look { loss_ms: 700, ..look(None, sample("a", 3, 2_000), &found) };
        assert_eq!(judged(look), expect("e1", 700, Some(marker("a", "e1", 3, 700))));
        assert_eq!(judged(self::look(Some(&previous), sample("a", 3, 2_000), &MarkerRead::Unread)).0, "e1");
    }

    #[test]
    fn evictions_move_the_horizon_for_everybody() {
        let previous = known(sample("a", 3, 1_000), "e1", 500);
        let replaced = Some(marker("a", "e1", 4, 2_000));
        for previous in [Some(&previous), None] {
            let found = found("a", "e1", 3, 500);
            let judged = judged(look(previous, sample("a", 4, 2_000), &found));
            assert_eq!(judged, expect("e1", 2_000, replaced.clone()));
        }
        // Another process was faster.
        let found = found("a", "e1", 4, 1_900);
        assert_eq!(judged(look(Some(&previous), sample("a", 4, 2_000), &found)), expect("e1", 1_900, None));
    }

    #[test]
    fn data_that_may_have_gone_back_is_a_new_epoch_and_no_eviction() {
        let previous = known(sample("a", 3, 1_000), "e1", 500);
        for previous in [Some(&previous), None] {
            let found = found("a", "e1", 3, 500);
            let judged = judged(look(previous, sample("b", 0, 2_000), &found));
            assert_eq!(judged, expect("new", 500, Some(marker("b", "new", 0, 500))));
        }
        for previous in [Some(&previous), None] {
            let look = Look { loss_ms: 500, ..look(previous, sample("a", 3, 2_000), &MarkerRead::Missing) };
            assert_eq!(judged(look), expect("new", 500, Some(marker("a", "new", 3, 500))));
        }
    }

    #[test]
    fn who_looks_later_finds_the_epoch_in_the_marker() {
        let previous = known(sample("a", 3, 1_000), "e1", 500);
        let taken_over = found("b", "e2", 0, 500);
        assert_eq!(
            judged(look(Some(&previous), sample("b", 0, 2_000), &taken_over)),
            expect("e2", 500, None)
        );
        // The server is the same: it was emptied, and another process has found out.
        let emptied = found("a", "e2", 3, 500);
        assert_eq!(judged(look(Some(&previous), sample("a", 3, 2_000), &emptied)), expect("e2", 500, None));
    }

    #[test]
    fn slots_that_move_take_their_epoch_along() {
        let given = |look| Look { given_epoch: Some("e1".to_owned()), ..look };
        // To a new primary, with the giver's marker or without it.
        let of_the_giver = found("a", "e1", 3, 500);
        let judged_new = judged(given(look(None, sample("n", 0, 2_000), &of_the_giver)));
        assert_eq!(judged_new, expect("e1", 500, Some(marker("n", "e1", 0, 500))));
        let judged_new = judged(given(look(None, sample("n", 0, 2_000), &MarkerRead::Missing)));
        assert_eq!(judged_new, expect("e1", 0, Some(marker("n", "e1", 0, 0))));
        // What a new primary has evicted may have been of this cache.
        assert_eq!(judged(given(look(None, sample("n", 7, 2_000), &of_the_giver))).1, 2_000);
        // To a primary that has its own epoch, which goes on.
        let previous = known(sample("b", 0, 1_000), "e2", 0);
        let kept = judged(given(look(Some(&previous), sample("b", 0, 2_000), &of_the_giver)));
        assert_eq!(kept, expect("e2", 500, Some(marker("b", "e2", 0, 500))));
        // It is another server by now: that is no mere move.
        let other = judged(look(Some(&previous), sample("b:2", 0, 2_000), &of_the_giver));
        assert_eq!(other.0, "new");
        // From the primary whose marker it was, which has another place for it now.
        let previous =
            Known { marker_key: Some(b"before".to_vec()), ..known(sample("a", 3, 1_000), "e1", 0) };
        let moved_away = judged(look(Some(&previous), sample("a", 3, 2_000), &MarkerRead::Missing));
        assert_eq!(moved_away, expect("e1", 0, Some(marker("a", "e1", 3, 0))));
    }

    #[test]
    fn a_marker_that_cannot_be_written_is_no_loss_each_time_it_is_missed() {
        let (first, marker) = judge(look(None, sample("a", 0, 1_000), &MarkerRead::Missing));
        assert!(marker.is_some());
        assert_eq!(first.marker_key, None, "not before it is written");
        let second = judged(look(Some(&first), sample("a", 0, 2_000), &MarkerRead::Missing));
        assert_eq!(second.0, first.epoch);
    }

    #[test]
    fn who_is_told_too_little_leaves_the_marker_alone_and_takes_each_lost_connection_for_an_end() {
        let marked = found("a", "e1", 0, 0);
        let epoch = |sample, found| {
            let (epoch, _, marker) = judged(look(None, sample, found));
            assert_eq!(marker, None);
            epoch
        };
        let silent = sample("", 0, 2_000);
        let reconnected = Sample { connections_lost: 1, ..silent.clone() };
        for found in [&marked, &MarkerRead::Missing, &MarkerRead::Unread] {
            assert_eq!(epoch(silent.clone(), found), epoch(silent.clone(), found));
            assert_ne!(epoch(silent.clone(), found), epoch(reconnected.clone(), found));
            let uncounted = |identity| Sample { evicted_keys: None, ..sample(identity, 0, 2_000) };
            assert_ne!(epoch(uncounted("a"), found), epoch(uncounted("b"), found));
        }
        assert_ne!(epoch(silent.clone(), &marked), epoch(silent, &self::found("a", "e2", 0, 0)));
        // Who is told is not shaken by lost connections.
        let previous = known(sample("a", 0, 1_000), "e1", 0);
        let reconnected = Sample { connections_lost: 1, ..sample("a", 0, 2_000) };
        assert_eq!(judged(look(Some(&previous), reconnected, &marked)), expect("e1", 0, None));
    }

    #[test]
    fn without_a_marker_a_process_knows_what_it_has_seen() {
        let unread = |previous, sample| judged(look(previous, sample, &MarkerRead::Unread));
        assert_eq!(unread(None, sample("a", 0, 2_000)), expect("a", 0, None));
        let evicting = Sample { evicts: true, ..sample("a", 0, 2_000) };
        assert_eq!(unread(None, evicting), expect("a", 2_000, None));
        let previous = known(sample("a", 7, 1_000), "a", 0);
        assert_eq!(unread(Some(&previous), sample("a", 7, 2_000)), expect("a", 0, None));
        assert_eq!(unread(Some(&previous), sample("a", 8, 2_000)), expect("a", 2_000, None));
        assert_eq!(unread(Some(&previous), sample("b", 0, 2_000)).0, "b");
    }

    #[test]
    fn servers_tell_who_they_are_and_what_they_evicted() {
        let stats = "# Stats\r\nevicted_keys:7\r\nevicted_clients:1\r\n";
        let replication =
            "role:master\r\nmaster_replid:aa\r\nmaster_replid2:0000000000000000000000000000000000000000\r\n";
        let info = ["run_id:abc\r\n", replication, stats, "maxmemory_policy:allkeys-lru\r\n"];
        let expected = Sample { evicts: true, ..sample("abc", 7, 9) };
        assert_eq!(Sample::read(&info, false, 0, 9), expected);
        assert_eq!(Sample::read(&[&info.concat()], false, 0, 9), expected);
        assert!(!Sample::read(&["maxmemory_policy:noeviction\r\n"], false, 0, 9).evicts);

        let promoted = "run_id:abc\r\nrole:master\r\nmaster_replid2:00ff\r\n";
        assert_eq!(Sample::read(&[promoted], false, 0, 9).identity.as_deref(), Some("abc:00ff"));
        assert!(Sample::read(&["role:slave\r\n"], false, 0, 9).is_replica);
        let silent = Sample { identity: None, evicted_keys: None, evicts: true, ..sample("", 0, 9) };
        assert_eq!(Sample::read(&["# Stats\r\n", "nonsense"], false, 0, 9), silent);
    }

    #[test]
    fn markers_are_read_as_they_are_written_and_nothing_else_is_one() {
        let marker = marker("abc:ff", "0f", 5, 1_784_000_000_000);
        assert_eq!(marker.write(), "abc:ff 0f 5 1784000000000");
        assert_eq!(Marker::read(marker.write().as_bytes()), Some(marker));
        for text in ["", "a", "a e 1", "a e 1 x", "a e 1 2 3", "a e -1 2", "\u{ff} 1"] {
            assert_eq!(Marker::read(text.as_bytes()), None, "{text}");
        }
        assert_eq!(MarkerRead::read(Some(&Value::Nil)), MarkerRead::Missing);
        assert_eq!(MarkerRead::read(None), MarkerRead::Unread);
        assert_eq!(MarkerRead::read(Some(&Value::BulkString(b"foreign".to_vec()))), MarkerRead::Unread);
    }

    #[test]
    fn a_markers_name_is_the_first_whose_slot_is_the_primarys() {
        let key = |is_own: &dyn Fn(u16) -> bool| Marker::key("wc:", is_own).map(String::from_utf8);
        assert_eq!(key(&|_| true), Some(Ok("wc:warmcast:marker:{0}".to_owned())));
        for slot in [0, 5_000, 16_383] {
            let key = Marker::key("wc:", |other| other == slot).unwrap();
            assert_eq!(slot_of(&key), slot);
        }
        assert_eq!(key(&|_| false), None);
        // A prefix with a tag puts all keys into one slot: one primary has them all.
        let tagged = slot_of(b"{wc}x");
        assert!(Marker::key("{wc}:", |slot| slot == tagged).is_some());
        assert_eq!(Marker::key("{wc}:", |slot| slot != tagged), None);
    }
}
