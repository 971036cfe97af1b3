//! DESIGN.md, “Who may depend on whom”, as a table; checked against what the packages declare.
//!
//! Normal and build dependencies are bound by it. A test may use what it likes, except that nothing uses `hw-tests`.

use crate::workspace::Package;

/// Each package of ours and those of ours that it may use. `None`: anything.
const MAY_USE: &[(&str, Option<&[&str]>)] = &[
    ("redbutton-proto", Some(&[])),
    ("redbutton-proto-codegen", Some(&[])),
    ("redbutton-authz", Some(&["redbutton-proto"])),
    ("redbutton-audit", Some(&["redbutton-proto"])),
    ("redbutton-pod-wire", Some(&[])),
    ("redbutton-pod-sender", Some(&["redbutton-pod-wire"])),
    ("redbutton-pod-listener", Some(&["redbutton-pod-wire"])),
    ("redbutton-trust", Some(&["redbutton-proto"])),
    ("redbutton-link", Some(&["redbutton-proto", "redbutton-trust"])),
    (
        "redbutton-nodemgr",
        Some(&[
            "redbutton-proto",
            "redbutton-authz",
            "redbutton-audit",
            "redbutton-link",
            "redbutton-trust",
        ]),
    ),
    (
        "redbutton-controller",
        Some(&[
            "redbutton-proto",
            "redbutton-authz",
            "redbutton-audit",
            "redbutton-link",
            "redbutton-trust",
        ]),
    ),
    (
        "redbutton-cli",
        Some(&["redbutton-proto", "redbutton-audit", "redbutton-trust"]),
    ),
    ("redbutton-lab", Some(&[])),
    ("redbutton-hw-tests", None),
    ("xtask", Some(&[])),
];

/// Pure packages: of `proto` only the identifiers, and nothing that does I/O.
const PURE: &[&str] = &["redbutton-authz", "redbutton-audit"];
const IMPURE: &[&str] = &[
    "tokio", "tonic", "prost", "hyper", "rustls", "nix", "libc", "socket2", "sqlx", "tracing", "rand",
];

/// Nobody uses it.
const LAB: &str = "redbutton-hw-tests";

/// What breaks the rule, a sentence each.
pub(super) fn check(packages: &[Package]) -> Vec<String> {
    packages.iter().flat_map(check_one).collect()
}

fn check_one(package: &Package) -> Vec<String> {
    let name = package.name.as_str();
    let Some((_, may_use)) = MAY_USE.iter().find(|(known, _)| *known == name) else {
        return vec![format!(
            "{name} is not in the table of xtask/src/lint/depends.rs: add it as DESIGN.md says"
        )];
    };
    let mut wrong = Vec::new();
    for dependency in &package.dependencies {
        let used = dependency.name.as_str();
        let for_tests = dependency.kind.as_deref() == Some("dev");
        if used == LAB {
            wrong.push(format!("{name} depends on {LAB}: nothing may"));
        } else if for_tests {
            continue;
        } else if dependency.path.is_some() && may_use.is_some_and(|allowed| !allowed.contains(&used)) {
            wrong.push(format!("{name} may not depend on {used}"));
        }
        if PURE.contains(&name) {
            if IMPURE.contains(&used) {
                wrong.push(format!("{name} is pure and may not depend on {used}"));
            }
            let whole = dependency.uses_default_features
                || dependency.features.iter().any(|feature| feature == "grpc");
            if used == "redbutton-proto" && whole {
                wrong.push(format!(
                    "{name} may use redbutton-proto's identifiers only: default-features = false, no grpc"
                ));
            }
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Dependency;

    fn dependency(name: &str, kind: Option<&str>) -> Dependency {
        Dependency {
            name: name.into(),
            kind: kind.map(Into::into),
            path: name.starts_with("redbutton-").then(|| "/work".into()),
            features: vec![],
            uses_default_features: false,
        }
    }

    fn complaints(package: &str, dependencies: Vec<Dependency>) -> Vec<String> {
        check(&[Package {
            id: String::new(),
            name: package.into(),
            dependencies,
        }])
    }

    #[test]
    fn the_command_line_may_not_use_the_link() {
        assert_eq!(
            complaints("redbutton-cli", vec![dependency("redbutton-audit", None)]),
            [""; 0]
        );
        let wrong = complaints("redbutton-cli", vec![dependency("redbutton-link", None)]);
        assert_eq!(wrong, ["redbutton-cli may not depend on redbutton-link"]);
        let wrong = complaints("redbutton-cli", vec![dependency("redbutton-link", Some("build"))]);
        assert_eq!(wrong.len(), 1, "a build dependency counts too");
    }

    #[test]
    fn tests_may_use_anything_but_the_lab() {
        assert_eq!(
            complaints(
                "redbutton-cli",
                vec![dependency("redbutton-controller", Some("dev"))]
            ),
            [""; 0]
        );
        assert_eq!(
            complaints(
                "redbutton-cli",
                vec![dependency("redbutton-hw-tests", Some("dev"))]
            )
            .len(),
            1
        );
        assert_eq!(
            complaints(
                "redbutton-hw-tests",
                vec![dependency("redbutton-controller", None)]
            ),
            [""; 0]
        );
    }

    #[test]
    fn pure_packages_take_identifiers_alone() {
        assert_eq!(
            complaints("redbutton-authz", vec![dependency("redbutton-proto", None)]),
            [""; 0]
        );
        let mut whole = dependency("redbutton-proto", None);
        whole.features.push("grpc".into());
        assert_eq!(complaints("redbutton-authz", vec![whole]).len(), 1);
        let mut default = dependency("redbutton-proto", None);
        default.uses_default_features = true;
        assert_eq!(complaints("redbutton-audit", vec![default]).len(), 1);
        assert_eq!(
            complaints("redbutton-audit", vec![dependency("tokio", None)]).len(),
            1
        );
    }

    #[test]
    fn an_unknown_package_is_refused() {
        assert_eq!(complaints("redbutton-common", vec![]).len(), 1);
    }
}
