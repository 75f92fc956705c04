//! What a key may be for.

use std::fmt;

use serde::Deserialize;

/// A right to call the methods of one service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// `RecommendationService`.
    Recommend,
    /// `EventService`.
    Events,
    /// `CatalogService`.
    Catalogue,
    /// `AdminService`, on the admin port.
    Admin,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 4] = [Self::Recommend, Self::Events, Self::Catalogue, Self::Admin];

    /// The name in settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Recommend => "recommend",
            Self::Events => "events",
            Self::Catalogue => "catalogue",
            Self::Admin => "admin",
        }
    }

    /// What a path such as `/reg4rec.v1.EventService/Record` needs; none: any key will do.
    pub(super) fn needed(path: &str) -> Option<Self> {
        match path.split('/').nth(1)?.strip_prefix("reg4rec.v1.")? {
            "RecommendationService" => Some(Self::Recommend),
            "EventService" => Some(Self::Events),
            "CatalogService" => Some(Self::Catalogue),
            _ => Some(Self::Admin),
        }
    }

    /// What a caller without it is told.
    pub(super) fn lacking(self) -> &'static str {
        match self {
            Self::Recommend => "the key lacks the role `recommend`",
            Self::Events => "the key lacks the role `events`",
            Self::Catalogue => "the key lacks the role `catalogue`",
            Self::Admin => "the key lacks the role `admin`",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
