//! Where the controller of a fleet and its people are: on this machine's loopback, or in the network of a lab.

use std::sync::Arc;

use anyhow::Result;
use lab::net::Net;

/// An address with two ports, perhaps in a network namespace.
#[derive(Clone)]
pub struct Place {
    host: String,
    people: u16,
    daemons: u16,
    net: Option<Arc<Net>>,
}

impl Place {
    /// On loopback, with ports that are free at this moment.
    ///
    /// # Errors
    /// When there is no loopback.
    pub fn here() -> Result<Self> {
        Ok(Self {
            host: "127.0.0.1".into(),
            people: free_port()?,
            daemons: free_port()?,
            net: None,
        })
    }

    /// At the centre of a lab's network, with the default ports: the namespace is ours alone.
    #[must_use]
    pub fn centre(net: &Arc<Net>) -> Self {
        Self {
            host: lab::net::HOST.to_string(),
            people: 7443,
            daemons: 7444,
            net: Some(Arc::clone(net)),
        }
    }

    /// The address.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Where people dial.
    #[must_use]
    pub fn people(&self) -> String {
        format!("{}:{}", self.host, self.people)
    }

    /// Where daemons dial.
    #[must_use]
    pub fn daemons(&self) -> String {
        format!("{}:{}", self.host, self.daemons)
    }

    /// Does `work` there: what it connects to or starts is in that network.
    ///
    /// # Errors
    /// When the network cannot be entered.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        match &self.net {
            Some(net) => net.enter(work),
            None => Ok(work()),
        }
    }
}

fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
