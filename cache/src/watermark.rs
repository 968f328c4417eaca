//! The region's watermark, where readers find it: every change made before it has been applied in this cache.

use redis::Value;

use crate::{
    cache::Cache,
    call::{Arguments, Call},
    key_space::WATERMARK_KEY,
    outcome::CacheError,
};

impl Cache {
    /// Publishes the watermark, ms since the epoch, in place of the one before. It has the deadline of
    /// [`apply`](Self::apply): whoever was stopped for long does not set it back.
    ///
    /// # Errors
    /// It is not known whether it was published, or the deadline was past. Publish the next one.
    pub async fn publish_watermark(&self, watermark_ms: u64) -> Result<(), CacheError> {
        let deadline = self.fence().ok_or_else(|| self.past_deadline())?;
        let key = [&self.config().key_prefix, WATERMARK_KEY].concat().into_bytes();
        let call = Call::new(key, Arguments::Publish { watermark_ms });
        let published = |_, value: &Value| matches!(value, Value::Int(1)).then_some(());
        let answers = self.send(std::iter::once(Ok(call)), deadline, published).await;
        answers.into_iter().collect()
    }
}
