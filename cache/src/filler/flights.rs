//! One flight for each key: who waits for it, and what it found. Pure but for the channels of those who wait.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::{FillAnswer, FillError, FillShedReason};
use crate::{item_id::ItemId, table_queue::TableQueue};

pub(super) type FillResult = Result<FillAnswer, FillError>;

/// Gets a key's answer.
pub(super) type Waiter = oneshot::Sender<FillResult>;

/// Whoever asked for a key gets this.
pub(crate) enum Ticket {
    /// It is known, or will not be tried.
    Known(FillResult),
    /// It comes.
    Coming(oneshot::Receiver<FillResult>),
}

#[derive(Default)]
pub(super) struct Flights {
    queue: TableQueue,
    /// Of every key in the queue, and of those under way.
    flights: HashMap<ItemId, Flight>,
    keys_max: usize,
}

#[derive(Default)]
struct Flight {
    waiters: Vec<Waiter>,
    /// What the read found; the fill is under way.
    answer: Option<FillResult>,
    has_begun: bool,
    /// The key became invalid after this began.
    again: bool,
}

impl Flights {
    pub(super) fn new(keys_max: usize) -> Self {
        Self { keys_max, ..Self::default() }
    }

    /// Keys waiting and under way.
    pub(super) fn len(&self) -> usize {
        self.flights.len()
    }

    /// Joins a key's flight, or has one wait for its turn, unless reads are shed.
    pub(super) fn ask(&mut self, id: &ItemId, admits: bool) -> Ticket {
        let (keys, keys_max) = (self.flights.len(), self.keys_max);
        let flight = match self.flights.entry(id.clone()) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                if let Some(reason) = shed_reason(admits, keys, keys_max) {
                    return Ticket::Known(Err(FillError::Shed { reason }));
                }
                self.queue.push(id.clone());
                entry.insert(Flight::default())
            }
        };
        if let Some(answer) = &flight.answer {
            return Ticket::Known(answer.clone());
        }
        let (waiter, receiver) = oneshot::channel();
        flight.waiters.push(waiter);
        Ticket::Coming(receiver)
    }

    /// Joins a key's flight, if there is one.
    pub(super) fn join(&mut self, id: &ItemId) -> Option<Ticket> {
        self.flights.contains_key(id).then(|| self.ask(id, true))
    }

    /// Has a key filled that became invalid just now; false: it is shed. If a flight of it has begun, another follows it,
    /// however that one ends: it may have found the key in order, or filled it, just before it became invalid.
    pub(super) fn offer(&mut self, id: ItemId, admits: bool) -> bool {
        let (keys, keys_max) = (self.flights.len(), self.keys_max);
        match self.flights.entry(id.clone()) {
            Entry::Occupied(mut entry) => {
                let flight = entry.get_mut();
                flight.again = flight.has_begun;
                true
            }
            Entry::Vacant(entry) => {
                if shed_reason(admits, keys, keys_max).is_some() {
                    return false;
                }
                self.queue.push(id);
                entry.insert(Flight::default());
                true
            }
        }
    }

    /// Takes the next table's oldest keys; their flights have begun.
    pub(super) fn begin(&mut self, keys_max: usize) -> Option<(Arc<str>, Vec<Bytes>)> {
        let (table, keys) = self.queue.pop_batch(keys_max)?;
        for key in &keys {
            if let Some(flight) =
                self.flights.get_mut(&ItemId { table: Arc::clone(&table), key: key.clone() })
            {
                flight.has_begun = true;
            }
        }
        Some((table, keys))
    }

    /// What a key's flight found, for those who wait; the flight goes on.
    pub(super) fn answer(&mut self, id: &ItemId, answer: &FillResult) {
        let Some(flight) = self.flights.get_mut(id) else { return };
        for waiter in flight.waiters.drain(..) {
            // Who stopped waiting needs no answer.
            let _ = waiter.send(answer.clone());
        }
        flight.answer = Some(answer.clone());
    }

    /// A key's flight has ended.
    pub(super) fn end(&mut self, id: &ItemId) {
        let Some(flight) = self.flights.remove(id) else { return };
        if flight.again {
            self.queue.push(id.clone());
            self.flights.insert(id.clone(), Flight::default());
        }
    }
}

fn shed_reason(admits: bool, keys: usize, keys_max: usize) -> Option<FillShedReason> {
    if !admits {
        Some(FillShedReason::Breaker)
    } else if keys >= keys_max {
        Some(FillShedReason::Full { keys_max })
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(key: &'static str) -> ItemId {
        ItemId::new("profiles", key)
    }

    fn coming(ticket: Ticket) -> oneshot::Receiver<FillResult> {
        match ticket {
            Ticket::Coming(receiver) => receiver,
            Ticket::Known(answer) => panic!("known: {answer:?}"),
        }
    }

    #[test]
    fn callers_join_the_flight_of_their_key_until_it_has_ended() {
        let mut flights = Flights::new(10);
        let mut first = coming(flights.ask(&id("a"), true));
        let mut second = coming(flights.ask(&id("a"), true));
        assert_eq!(flights.begin(100).unwrap().1, ["a"]);
        let mut third = coming(flights.ask(&id("a"), true));
        assert!(flights.begin(100).is_none());
        flights.answer(&id("a"), &Ok(FillAnswer::Absent));
        for receiver in [&mut first, &mut second, &mut third] {
            assert_eq!(receiver.try_recv().unwrap(), Ok(FillAnswer::Absent));
        }
        assert!(matches!(flights.ask(&id("a"), true), Ticket::Known(Ok(FillAnswer::Absent))));
        flights.end(&id("a"));
        assert_eq!(flights.len(), 0);
        coming(flights.ask(&id("a"), true));
        assert!(flights.begin(100).is_some(), "a new flight");
    }

    #[test]
    fn what_is_too_much_is_shed_but_joining_costs_nothing() {
        let mut flights = Flights::new(1);
        coming(flights.ask(&id("a"), true));
        let shed = |ticket| match ticket {
            Ticket::Known(Err(FillError::Shed { reason })) => reason,
            _ => panic!("not shed"),
        };
        assert_eq!(shed(flights.ask(&id("b"), true)), FillShedReason::Full { keys_max: 1 });
        assert!(!flights.offer(id("b"), true));
        coming(flights.ask(&id("a"), false));
        flights.begin(100);
        flights.end(&id("a"));
        assert_eq!(shed(flights.ask(&id("a"), false)), FillShedReason::Breaker);
        assert!(!flights.offer(id("a"), false));
        assert_eq!(flights.len(), 0);
    }

    #[test]
    fn a_key_that_becomes_invalid_during_its_flight_is_filled_again_once() {
        let mut flights = Flights::new(10);
        assert!(flights.offer(id("a"), true));
        assert!(flights.offer(id("a"), true), "it has not begun: nothing is too early yet");
        flights.begin(100);
        flights.end(&id("a"));
        assert_eq!(flights.len(), 0, "once");

        flights.offer(id("b"), true);
        flights.begin(100);
        flights.offer(id("b"), true);
        // What it found, or filled, may be from before.
        flights.answer(&id("b"), &Ok(FillAnswer::Absent));
        flights.end(&id("b"));
        assert!(flights.begin(100).is_some(), "another follows");
        flights.end(&id("b"));
        assert_eq!(flights.len(), 0);
    }
}
