//! A fake that listens on a port.

use std::io;

use tokio_util::sync::CancellationToken;

use super::fake::{FakeStreams, Options};
use super::http;
use crate::clients;
use crate::server::EmbeddedServer;

/// A fake that listens. Dropping it stops it.
#[derive(Debug)]
pub struct FakeStreamsServer {
    fake: FakeStreams,
    server: Option<EmbeddedServer>,
    stop: CancellationToken,
}

impl FakeStreamsServer {
    /// The endpoint URL.
    #[must_use]
    pub fn url(&self) -> String {
        self.server.as_ref().map(EmbeddedServer::url).unwrap_or_default()
    }

    /// The script and the observations.
    #[must_use]
    pub fn streams(&self) -> &FakeStreams {
        &self.fake
    }

    /// A client for it.
    #[must_use]
    pub fn client(&self) -> aws_sdk_dynamodbstreams::Client {
        clients::streams(&self.url(), &self.fake.options().region)
    }

    /// Stops it; hanging calls are cut.
    pub async fn stop(mut self) {
        self.stop.cancel();
        if let Some(server) = self.server.take() {
            server.stop().await;
        }
    }
}

impl Drop for FakeStreamsServer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl FakeStreams {
    /// Starts a fake with no streams on a free loopback port.
    ///
    /// # Errors
    /// No port could be bound.
    pub async fn start(options: Options) -> io::Result<FakeStreamsServer> {
        let fake = Self::new(options);
        let stop = CancellationToken::new();
        let (served, stopped) = (fake.clone(), stop.clone());
        let server = EmbeddedServer::start(|listener, stop_server| async move {
            let serving = http::serve(listener, served, stopped.clone());
            tokio::pin!(serving);
            // Whichever comes first: the server is stopped, or its handle is dropped.
            tokio::select! {
                () = &mut serving => return,
                () = stop_server.cancelled() => stopped.cancel(),
            }
            serving.await;
        })
        .await?;
        Ok(FakeStreamsServer { fake, server: Some(server), stop })
    }
}
