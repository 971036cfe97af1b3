//! Messages that carry a key show it nowhere: their `Debug` is written by hand.

use std::fmt;

use crate::v1;

impl fmt::Debug for v1::NodeToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            node,
            name,
            site,
            bundle: _,
            expires_at_ms,
        } = self;
        f.debug_struct("NodeToken")
            .field("node", node)
            .field("name", name)
            .field("site", site)
            .field("expires_at_ms", expires_at_ms)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for v1::InviteReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { invite, bundle: _ } = self;
        f.debug_struct("InviteReply")
            .field("invite", invite)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_not_shown() {
        let token = v1::NodeToken {
            bundle: "very secret".into(),
            ..Default::default()
        };
        let invite = v1::InviteReply {
            bundle: "very secret".into(),
            ..Default::default()
        };
        let shown = format!("{token:?} {invite:?}");
        assert!(!shown.contains("very"), "{shown}");
    }
}
