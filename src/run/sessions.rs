//! What follows when a database session opens, cannot be opened, or is closed.

use std::sync::Arc;

use crate::exit::ExitReason;
use crate::postgres::OpenError;
use crate::store::migrate::MigrateError;
use crate::store::sink::SinkError;
use pgsluice_core::fault::Fault;
use pgsluice_core::record::SessionId;

use super::Pipeline;
use super::perform::{Live, OpenFailure, Opened, Outcome};
use crate::route::decoder::Decoder;
use pgsluice_core::input::Input;
use pgsluice_core::source::Command;

/// What was told of a database that answers and cannot be used.
#[derive(Debug, Default)]
pub(super) struct Unusable(Option<String>);

impl Unusable {
    /// Whether the attempt failed in another way than the one before.
    fn news(&mut self, failure: &OpenFailure) -> bool {
        let now = match failure {
            OpenFailure::Tables(error) => error.to_string(),
            OpenFailure::Connection(error) => error.to_string(),
            OpenFailure::Sink(error) => error.to_string(),
            OpenFailure::Brokers => return false,
        };
        self.0.replace(now.clone()).is_none_or(|before| before != now)
    }
}

impl Pipeline {
    pub(super) fn on_opened(&mut self, opened: Opened) {
        let Opened { session, end, context } = opened;
        let id = session.id;
        self.first_session_by = None;
        self.unusable = Unusable::default();
        self.telemetry.session_opened(id);
        self.plan_doubted = context.plan.has_unusable();
        let decoder = Decoder::new(&context.plan, &self.around.config);
        self.source.send(Command::Decode(Arc::new(decoder)));
        self.desk.send_modify(|desk| desk.letters = Some(Arc::clone(&session)));
        let around = Arc::clone(&self.around);
        self.live = Some(Live { session, context, around });
        self.work.push(Box::pin(async move {
            let fault = end.wait().await;
            Outcome::Input(Input::SessionLost(id, fault))
        }));
        self.feed(Input::SessionOpened(id));
    }

    pub(super) fn on_not_opened(&mut self, id: SessionId, failure: OpenFailure) {
        let news = self.unusable.news(&failure);
        let useless = match &failure {
            OpenFailure::Sink(error @ SinkError::ClusterMismatch { .. }) => {
                tracing::error!(
                    event = "cluster_mismatch",
                    %error,
                    "the brokers are not the cluster that this sink has read; not starting"
                );
                return self.end(ExitReason::Fenced);
            }
            OpenFailure::Tables(MigrateError::Database(_))
            | OpenFailure::Connection(OpenError::Database(_))
            | OpenFailure::Sink(SinkError::Database(_)) => false,
            OpenFailure::Tables(error) => {
                if news {
                    tracing::error!(
                        event = "tables_unusable",
                        %error,
                        "cannot use pgsluice's tables"
                    );
                }
                true
            }
            OpenFailure::Connection(error) => {
                if news {
                    tracing::error!(event = "database_unusable", %error, "database");
                }
                true
            }
            OpenFailure::Brokers => {
                tracing::warn!(event = "brokers_silent", "no broker answers; waiting for one");
                false
            }
        };
        if useless && self.first_session_by.is_some() {
            return self.end(ExitReason::Configuration);
        }
        self.feed(Input::SessionLost(id, failure.fault()));
    }

    pub(super) fn close_session(&mut self, id: SessionId, fault: &Fault) {
        self.telemetry.session_lost(id, fault);
        if let Some(live) = self.live.take_if(|live| live.session.id == id) {
            self.desk.send_modify(|desk| desk.letters = None);
            live.session.close();
        }
    }
}
