//! What follows when a database session opens, cannot be opened, or is closed.

use std::sync::Arc;

use crate::fault::Fault;
use crate::postgres::OpenError;
use crate::postgres::migrate::MigrateError;
use crate::record::SessionId;
use crate::supervisor::ExitReason;

use super::Pipeline;
use super::decode::Decoder;
use super::input::Input;
use super::perform::{Live, OpenFailure, Opened, Outcome};
use super::poll::Command;

impl Pipeline {
    pub(super) fn on_opened(&mut self, opened: Opened) {
        let Opened { session, end, context } = opened;
        let id = session.id;
        self.first_session_by = None;
        self.telemetry.session_opened(id);
        self.plan_doubted = context.plan.has_unusable();
        let decoder = Decoder::new(&context.plan, &self.around.config);
        self.consumer.send(Command::Decode(Arc::new(decoder)));
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
        let first = self.first_session_by.is_some();
        match &failure {
            OpenFailure::Connection(error @ OpenError::ClusterMismatch { .. }) => {
                tracing::error!(event = "cluster_mismatch", %error, "refusing to start");
                return self.end(ExitReason::Fenced);
            }
            OpenFailure::Tables(MigrateError::Database(_))
            | OpenFailure::Connection(OpenError::Database(_)) => {}
            OpenFailure::Tables(error) => {
                tracing::error!(event = "tables_unusable", %error, "pgsluice's tables");
                if first {
                    return self.end(ExitReason::Configuration);
                }
            }
            OpenFailure::Connection(error) => {
                tracing::error!(event = "database_unusable", %error, "database");
                if first {
                    return self.end(ExitReason::Configuration);
                }
            }
            OpenFailure::Brokers => {
                tracing::warn!(event = "brokers_silent", "no broker answers; waiting for one");
            }
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
