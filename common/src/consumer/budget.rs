//! The byte budget: how much may be read and not yet done, over all shards of a process.
//!
//! A reader reserves the worst case of a read *before* it reads, and gives the surplus back when it knows what
//! came. When the budget is gone, readers wait; they are served in the order in which they asked.

use std::sync::Arc;

use tokio::sync::Semaphore;

/// A bound on bytes, shared by everything that holds records. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ByteBudget {
    semaphore: Arc<Semaphore>,
    bytes_max: u32,
}

/// A share of the budget, given back when it is dropped.
#[must_use = "dropping it gives the bytes back at once"]
pub struct BytePermit {
    semaphore: Arc<Semaphore>,
    bytes: usize,
}

impl ByteBudget {
    /// A budget of `bytes_max` bytes, at most 4 GiB less one.
    pub fn new(bytes_max: usize) -> Self {
        let bytes_max = u32::try_from(bytes_max).unwrap_or(u32::MAX);
        Self { semaphore: Arc::new(Semaphore::new(bytes_max as usize)), bytes_max }
    }

    /// Waits until `bytes` are free and takes them. A wish beyond the whole budget takes the whole budget: one
    /// large record then travels alone instead of never.
    pub async fn reserve(&self, bytes: usize) -> BytePermit {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.bytes_max);
        match Arc::clone(&self.semaphore).acquire_many_owned(bytes).await {
            Ok(permit) => {
                permit.forget();
                BytePermit { semaphore: Arc::clone(&self.semaphore), bytes: bytes as usize }
            }
            // The semaphore is private and never closed.
            Err(_) => std::future::pending().await,
        }
    }

    /// Bytes that are taken now, or set aside for the reader that waits first.
    pub fn bytes_in_use(&self) -> usize {
        (self.bytes_max as usize).saturating_sub(self.semaphore.available_permits())
    }

    /// Bytes there are in all.
    pub fn bytes_max(&self) -> usize {
        self.bytes_max as usize
    }
}

impl BytePermit {
    /// Splits off `bytes`, or what there is if that is less.
    pub fn take(&mut self, bytes: usize) -> BytePermit {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Self { semaphore: Arc::clone(&self.semaphore), bytes }
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for BytePermit {
    fn drop(&mut self) {
        self.semaphore.add_permits(self.bytes);
    }
}

impl std::fmt::Debug for BytePermit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BytePermit").field("bytes", &self.bytes).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[tokio::test]
    async fn a_reader_waits_for_the_worst_case_and_gives_the_surplus_back() {
        let budget = ByteBudget::new(100);
        let mut first = budget.reserve(80).await;
        let waiting = budget.reserve(50);
        tokio::pin!(waiting);
        assert!(futures_poll(&mut waiting).is_none(), "80 + 50 do not fit");
        let kept = first.take(30);
        drop(first);
        let second = futures_poll(&mut waiting).expect("30 + 50 fit");
        assert_eq!(budget.bytes_in_use(), 80);
        drop((kept, second));
        assert_eq!(budget.bytes_in_use(), 0);
    }

    #[tokio::test]
    async fn more_than_the_whole_budget_is_the_whole_budget() {
        let budget = ByteBudget::new(100);
        assert_eq!(budget.reserve(1_000).await.bytes(), 100);
    }

    /// Polls once.
    fn futures_poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match std::pin::Pin::new(future).poll(&mut context) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        }
    }

    proptest! {
        #[test]
        fn however_a_permit_is_split_its_bytes_come_back_once(parts in prop::collection::vec(0usize..50, 0..20)) {
            let budget = ByteBudget::new(100);
            let mut whole = futures_poll(&mut Box::pin(budget.reserve(100))).unwrap();
            let held: Vec<_> = parts.iter().map(|&bytes| whole.take(bytes)).collect();
            prop_assert_eq!(held.iter().map(BytePermit::bytes).sum::<usize>() + whole.bytes(), 100);
            drop(whole);
            prop_assert_eq!(budget.bytes_in_use(), held.iter().map(BytePermit::bytes).sum::<usize>());
            drop(held);
            prop_assert_eq!(budget.bytes_in_use(), 0);
        }
    }
}
