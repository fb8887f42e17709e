// SPDX-License-Identifier: Apache-2.0
//! How the launch watches a step: what the plan says of its health, on the nodes of the job.

use std::fmt;

use crate::plan::Instance;
use crate::plan::health::{Alive, Http, Ready};

/// How a step is watched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Watch {
    /// Whom to ask whether it is ready.
    pub target: Option<Target>,
    /// How it is asked from then on.
    pub alive: Option<Alive>,
    /// Texts in its log that say it is ready.
    pub ready: Vec<String>,
    /// Texts in its log that mean death.
    pub fatal: Vec<String>,
    /// Roles that must be ready before it starts.
    pub after: Vec<String>,
}

/// Whom to ask, and what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The address of the step's first node.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The request; without one, a connection is all that is wanted.
    pub http: Option<Http>,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.http {
            Some(http) => f.write_str(&http.path),
            None => write!(f, "port {}", self.port),
        }
    }
}

/// A port of the plan that is not a port number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{step} has the port {port:?}; ports are numbers from 1 to 65535")]
pub struct NoPort {
    /// The step.
    pub step: String,
    /// What the plan says.
    pub port: String,
}

impl Watch {
    /// The watch over an instance; `ready` is its role's for this very step.
    ///
    /// # Errors
    /// [`NoPort`].
    pub fn new(
        instance: &Instance<'_>,
        ready: Option<Ready>,
        addresses: &[String],
    ) -> Result<Self, NoPort> {
        let role = instance.role;
        let port =
            ready.as_ref().and_then(Ready::port).map(|port| port.literal_text().into_owned());
        let mut watch = Self {
            target: None,
            alive: role.alive,
            ready: Vec::new(),
            fatal: role.fatal.clone(),
            after: role.after.clone(),
        };
        let http = match ready {
            Some(Ready::Http(http)) => Some(http),
            Some(Ready::Log(texts)) => {
                watch.ready = texts;
                None
            }
            Some(Ready::Tcp { .. }) | None => None,
        };
        if let (Some(port), Some(host)) = (port, addresses.first()) {
            let number = port.parse().ok().filter(|number| *number > 0);
            let port = number.ok_or_else(|| NoPort { step: instance.name.clone(), port })?;
            watch.target = Some(Target { host: host.clone(), port, http });
        }
        Ok(watch)
    }

    /// Whether it is seen when the step is ready.
    #[must_use]
    pub fn sees_ready(&self) -> bool {
        self.target.is_some() || !self.ready.is_empty()
    }
}
