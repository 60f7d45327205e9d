//! The configuration of cluster DNS: what is certainly wrong with it. Its text is not kept.

/// Key of the config map that holds it.
pub(super) const COREFILE: &str = "Corefile";
/// Longest one that is read, bytes.
const BYTES_MAX: usize = 256 << 10;
/// Things that are told of one at most.
const FAULTS_MAX: usize = 8;

/// Plugins that CoreDNS is built with.
const PLUGINS: &str = "acl any auto autopath azure bind bufsize cache cancel chaos clouddns debug dns64 dnssec dnstap \
    erratic errors etcd file forward geoip grpc grpc_server header health hosts https https3 import k8s_external \
    kubernetes loadbalance local log loop metadata minimal multisocket nomad nsid pprof prometheus quic ready reload \
    rewrite root route53 secondary sign template timeouts tls trace transfer tsig view whoami";

/// What can be told of a configuration of cluster DNS.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Corefile {
    /// What is certainly wrong with it, for people: names of plugins and zones only.
    pub faults: Vec<String>,
    /// Whether names of the cluster are answered from the API.
    pub serves_cluster: bool,
    /// Whether it takes parts from other files, which are not seen.
    pub imports: bool,
    /// Whether DNS reads it again when it changes.
    pub reloads: bool,
}

impl Corefile {
    /// Reads one.
    pub fn read(text: &str) -> Self {
        let mut seen = Self::default();
        if text.len() > BYTES_MAX {
            return Self { imports: true, ..seen };
        }
        let mut depth = 0_i64;
        // The zone of the cluster that a template answers for, while its block is open; empty for other names.
        let mut template: Option<String> = None;
        for line in text.lines() {
            let line = line.split_once('#').map_or(line, |(code, _)| code).trim();
            let words: Vec<&str> = line.split_whitespace().collect();
            let Some(first) = words.first().copied() else { continue };
            if depth == 1 && first != "}" {
                seen.plugin(first, &words, &mut template);
            } else if depth == 2
                && let Some(zone) = template.as_ref().filter(|z| !z.is_empty())
                && first == "rcode"
                && words.get(1).is_some_and(|code| !code.eq_ignore_ascii_case("NOERROR"))
            {
                let code = words.get(1).copied().unwrap_or_default().to_ascii_uppercase();
                seen.fault(format!("its template answers {code} for {zone}, before the API is asked"));
            } else if depth == 2
                && first == "match"
                && template.is_some()
                && words.iter().any(|w| w.replace('\\', "").contains("cluster.local"))
            {
                template = Some("names of the cluster".to_owned());
            } else if depth == 0 && first == "import" {
                seen.imports = true;
            }
            let (opened, closed) = (count(line, "{"), count(line, "}"));
            depth += opened - closed;
            if depth < 0 {
                break;
            }
            if depth <= 1 && closed > 0 {
                template = None;
            }
        }
        if depth != 0 {
            seen.fault("its braces do not match, so DNS cannot start with it".to_owned());
        }
        seen
    }

    fn fault(&mut self, text: String) {
        if self.faults.len() < FAULTS_MAX && !self.faults.contains(&text) {
            self.faults.push(text);
        }
    }

    fn plugin(&mut self, name: &str, words: &[&str], template: &mut Option<String>) {
        match name {
            "kubernetes" => self.serves_cluster = true,
            "import" => self.imports = true,
            "reload" => self.reloads = true,
            "template" => {
                // Only a template for names of the cluster hides what the API knows.
                let zone = words.iter().skip(1).find(|w| w.trim_end_matches('.').ends_with("cluster.local"));
                *template = Some(zone.map_or_else(String::new, |z| (*z).to_owned()));
            }
            "forward" => {
                let own = |w: &&&str| {
                    let host = w.rsplit("://").next().unwrap_or_default();
                    host.starts_with("127.") || host.starts_with("[::1]") || host == "::1" || host == "localhost"
                };
                if words.iter().skip(2).any(|w| own(&w)) {
                    self.fault("it forwards to itself, which is a loop".to_owned());
                }
            }
            _ => {
                let known = |p: &str| p == name;
                let near =
                    PLUGINS.split_whitespace().find(|p| name.len() > 3 && super::text::distance(p, name, 2) <= 2);
                if !PLUGINS.split_whitespace().any(known)
                    && let Some(near) = near
                {
                    self.fault(format!("it names no known plugin where `{near}` is meant"));
                }
            }
        }
    }
}

fn count(line: &str, what: &str) -> i64 {
    line.split_whitespace().filter(|w| *w == what || (what == "{" && w.ends_with('{'))).count() as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = ".:53 {\n    errors\n    health {\n       lameduck 5s\n    }\n    ready\n    kubernetes cluster.local \
        in-addr.arpa ip6.arpa {\n       pods insecure\n       fallthrough in-addr.arpa ip6.arpa\n    }\n    \
        prometheus :9153\n    forward . /etc/resolv.conf {\n       max_concurrent 1000\n    }\n    cache 30\n    loop\n    \
        reload\n    loadbalance\n}\n";

    #[test]
    fn a_usual_configuration_has_no_fault() {
        let seen = Corefile::read(GOOD);
        assert_eq!(seen, Corefile { serves_cluster: true, reloads: true, ..Corefile::default() });
        // A template for other names is what many have.
        let other = GOOD.replace("    ready\n", "    template ANY AAAA example.org {\n      rcode NXDOMAIN\n    }\n");
        assert_eq!(Corefile::read(&other).faults, Vec::<String>::new());
    }

    #[test]
    fn broken_ones_are_told() {
        let fault = |text: &str| Corefile::read(text).faults.join("; ");
        let template = GOOD.replace(
            "    ready\n",
            "    template ANY ANY svc.cluster.local {\n      match \".*\"\n      rcode NXDOMAIN\n    }\n",
        );
        assert!(fault(&template).contains("NXDOMAIN for svc.cluster.local"), "{}", fault(&template));
        assert!(fault(&GOOD.replace("loadbalance\n}", "loadbalance\n")).contains("braces"));
        assert!(fault(&GOOD.replace("forward .", "forwrd .")).contains("`forward` is meant"));
        assert!(fault(&GOOD.replace("/etc/resolv.conf", "127.0.0.1")).contains("loop"));
        assert!(!Corefile::read(&GOOD.replace("kubernetes", "file")).serves_cluster);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read(text in "[a-z{}#\\\\ .\n]{0,300}") {
            Corefile::read(&text);
        }
    }
}
