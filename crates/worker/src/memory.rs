//! How much memory KV blocks get by default, decided from what the kernel says about this process's cgroup.
//!
//! Everything but [`MemoryTexts::read`] is a pure function over the texts of the kernel's files. The file cache counts
//! as available: most of it is mapped weights, which the kernel drops when memory is wanted elsewhere.

use std::fmt;
use std::path::{Path, PathBuf};

const MIB: u64 = 1 << 20;

/// Share of the available memory that KV blocks take by default.
const SHARE_PERCENT: u64 = 25;

/// What the kernel's files say, as text.
#[derive(Clone, Debug, Default)]
pub struct MemoryTexts {
    /// `/proc/meminfo`.
    pub meminfo: String,
    /// The memory files of the process's cgroups, from its own to the root.
    pub groups: Vec<GroupTexts>,
}

/// The memory files of one cgroup; a file that is not there is empty.
#[derive(Clone, Debug, Default)]
pub struct GroupTexts {
    /// `memory.max`, or `memory.limit_in_bytes` in version 1.
    pub limit: String,
    /// `memory.current`, or `memory.usage_in_bytes`.
    pub usage: String,
    /// `memory.stat`.
    pub stat: String,
}

/// Where a figure of available memory came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemorySource {
    /// A limit of the cgroup.
    Cgroup,
    /// `MemAvailable` of the whole machine.
    Machine,
}

/// Memory that this process may still take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AvailableMemory {
    /// The figure.
    pub bytes: u64,
    /// Who said so.
    pub source: MemorySource,
}

/// Memory for the KV blocks of one model, and why it is that much.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvBudget {
    /// The figure.
    pub bytes: u64,
    reason: String,
}

impl MemoryTexts {
    /// Reads the kernel's files of this process. A file that is not there reads as empty.
    #[allow(clippy::disallowed_methods, reason = "the kernel's figures, not files that anybody stores")]
    pub fn read() -> Self {
        let text = |path: &Path| {
            let bytes = std::fs::read(path).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let group = |folder: CgroupFolder| GroupTexts {
            limit: text(&folder.path.join(folder.limit)),
            usage: text(&folder.path.join(folder.usage)),
            stat: text(&folder.path.join("memory.stat")),
        };
        let folders = cgroup_folders(&text(Path::new("/proc/self/cgroup")));
        Self { meminfo: text(Path::new("/proc/meminfo")), groups: folders.into_iter().map(group).collect() }
    }

    /// The least of what the cgroups' limits leave and what the machine has; `None` if no file says anything.
    pub fn available(&self) -> Option<AvailableMemory> {
        let machine = meminfo_available(&self.meminfo);
        let machine = machine.map(|bytes| AvailableMemory { bytes, source: MemorySource::Machine });
        let groups = self.groups.iter().filter_map(GroupTexts::available);
        let groups = groups.map(|bytes| AvailableMemory { bytes, source: MemorySource::Cgroup });
        machine.into_iter().chain(groups).min_by_key(|available| available.bytes)
    }
}

impl GroupTexts {
    /// Limit minus usage, with the file cache counted as free; `None` without a limit.
    fn available(&self) -> Option<u64> {
        let limit: u64 = self.limit.trim().parse().ok()?;
        let usage: u64 = self.usage.trim().parse().ok()?;
        let cache = stat(&self.stat, "inactive_file") + stat(&self.stat, "active_file");
        Some(limit.saturating_sub(usage.saturating_sub(cache)))
    }
}

/// One figure of `memory.stat`; 0 where it is missing. Version 1 counts the whole subtree under `total_`.
fn stat(text: &str, name: &str) -> u64 {
    let value = |line: &str, name: &str| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok();
    let total = format!("total_{name}");
    let find = |name: &str| text.lines().find_map(|line| value(line, name));
    find(&total).or_else(|| find(name)).unwrap_or(0)
}

fn meminfo_available(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// A folder with the memory files of a cgroup, and what they are called there.
#[derive(Debug, PartialEq, Eq)]
struct CgroupFolder {
    path: PathBuf,
    limit: &'static str,
    usage: &'static str,
}

/// The folders that `/proc/self/cgroup` points to, version 2 and 1, each from the process's own group to the root.
///
/// Inside a container the text may name a path of the host that is not there; the root is then the container's own.
fn cgroup_folders(text: &str) -> Vec<CgroupFolder> {
    let mut folders = Vec::new();
    for line in text.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let (mount, limit, usage) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max", "memory.current"),
            _ if controllers.split(',').any(|controller| controller == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes")
            }
            _ => continue,
        };
        for group in Path::new(path).ancestors() {
            let group = group.strip_prefix("/").unwrap_or(group);
            folders.push(CgroupFolder { path: Path::new(mount).join(group), limit, usage });
        }
    }
    folders
}

/// What decides the budget of one model.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KvDemand {
    /// Bytes that the configuration gives to all models of the process.
    pub(crate) configured: Option<u64>,
    /// Memory that the process may still take.
    pub(crate) available: Option<AvailableMemory>,
    /// Models that share it.
    pub(crate) models: u64,
    /// Most sequences of this model at once.
    pub(crate) sequences_max: u64,
    /// Most tokens of each.
    pub(crate) context_tokens: u64,
    /// KV bytes of one token.
    pub(crate) token_bytes: u64,
}

impl KvBudget {
    /// The budget for `demand`: what is configured, or the lesser of 25 % of what is available and what is needed.
    pub(crate) fn decide(demand: &KvDemand) -> Self {
        let shared = match demand.models {
            0 | 1 => String::new(),
            models => format!(", shared by {models} models"),
        };
        let models = demand.models.max(1);
        if let Some(bytes) = demand.configured {
            return Self { bytes: bytes / models, reason: format!("as configured{shared}") };
        }
        let KvDemand { sequences_max, context_tokens, token_bytes, .. } = *demand;
        let needed = sequences_max.saturating_mul(context_tokens).saturating_mul(token_bytes);
        let need = format!("what {sequences_max} sequences of {context_tokens} tokens need");
        let Some(available) = demand.available else {
            return Self {
                bytes: needed,
                reason: format!("{need}; the system does not say how much memory is free"),
            };
        };
        let share = available.bytes / 100 * SHARE_PERCENT / models;
        if needed <= share {
            return Self { bytes: needed, reason: need };
        }
        let mib = available.bytes / MIB;
        let reason = format!("{SHARE_PERCENT} % of the {mib} MiB available to {}{shared}", available.source);
        Self { bytes: share, reason }
    }

    /// Where the figure came from, such as `25 % of the 3072 MiB available to the machine`.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

impl fmt::Display for MemorySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cgroup => "the cgroup",
            Self::Machine => "the machine",
        })
    }
}

impl fmt::Display for KvBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MiB for KV blocks: {}", self.bytes / MIB, self.reason)
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::{
        AvailableMemory, GroupTexts, KvBudget, KvDemand, MIB, MemorySource, MemoryTexts, cgroup_folders,
    };

    const MEMINFO: &str = "MemTotal:       16000000 kB\nMemFree:  100 kB\nMemAvailable:    8388608 kB\n";

    fn group(limit: &str, usage: &str, stat: &str) -> GroupTexts {
        GroupTexts { limit: limit.to_owned(), usage: usage.to_owned(), stat: stat.to_owned() }
    }

    fn available(groups: Vec<GroupTexts>) -> Option<AvailableMemory> {
        MemoryTexts { meminfo: MEMINFO.to_owned(), groups }.available()
    }

    #[test]
    fn without_a_limit_the_machine_decides() {
        let machine = Some(AvailableMemory { bytes: 8192 * MIB, source: MemorySource::Machine });
        assert_eq!(available(vec![]), machine);
        assert_eq!(available(vec![group("max\n", "1000\n", "")]), machine);
        assert_eq!(available(vec![group("9223372036854771712\n", "1000\n", "")]), machine);
        assert_eq!(available(vec![group("", "", "")]), machine);
        assert_eq!(MemoryTexts::default().available(), None);
    }

    #[test]
    fn the_tightest_cgroup_decides_and_its_file_cache_counts_as_free() {
        let stat = "anon 1\ninactive_file 104857600\nactive_file 52428800\nactive_file_other 7\n";
        let own = group("max", "524288000", stat);
        let parent = group("1073741824\n", "524288000\n", stat);
        let expected = AvailableMemory { bytes: (1024 - 500 + 150) * MIB, source: MemorySource::Cgroup };
        assert_eq!(available(vec![own, parent]), Some(expected));
    }

    #[test]
    fn version_1_counts_the_subtree() {
        let stat = "inactive_file 1\nactive_file 1\ntotal_inactive_file 1048576\ntotal_active_file 2097152\n";
        let expected = AvailableMemory { bytes: (100 - 10 + 3) * MIB, source: MemorySource::Cgroup };
        assert_eq!(available(vec![group("104857600", "10485760", stat)]), Some(expected));
    }

    #[test]
    fn a_full_cgroup_leaves_nothing_rather_than_wrapping() {
        let expected = AvailableMemory { bytes: 0, source: MemorySource::Cgroup };
        assert_eq!(available(vec![group("100", "200", "")]), Some(expected));
        assert_eq!(
            available(vec![group("100", "200", "inactive_file 900")]).map(|found| found.bytes),
            Some(100)
        );
    }

    #[test]
    fn both_cgroup_versions_name_their_folders_up_to_the_root() {
        let text = "9:name=systemd:/\n4:cpu,memory:/a/b\n0::/x\nnonsense\n";
        let folders: Vec<_> =
            cgroup_folders(text).into_iter().map(|folder| (folder.path, folder.limit)).collect();
        let (v1, v2) = ("memory.limit_in_bytes", "memory.max");
        let expected = [
            ("/sys/fs/cgroup/memory/a/b", v1),
            ("/sys/fs/cgroup/memory/a", v1),
            ("/sys/fs/cgroup/memory/", v1),
            ("/sys/fs/cgroup/x", v2),
            ("/sys/fs/cgroup/", v2),
        ];
        assert_eq!(folders, expected.map(|(path, limit)| (PathBuf::from(path), limit)));
    }

    fn demand() -> KvDemand {
        let available = Some(AvailableMemory { bytes: 4000 * MIB, source: MemorySource::Cgroup });
        KvDemand {
            configured: None,
            available,
            models: 1,
            sequences_max: 32,
            context_tokens: 8192,
            token_bytes: 23_040,
        }
    }

    #[test]
    fn the_budget_is_the_lesser_of_share_and_need_and_says_which() {
        let budget = KvBudget::decide(&demand());
        assert_eq!(
            budget.to_string(),
            "1000 MiB for KV blocks: 25 % of the 4000 MiB available to the cgroup"
        );
        let budget = KvBudget::decide(&KvDemand { sequences_max: 2, ..demand() });
        assert_eq!(budget.bytes, 2 * 8192 * 23_040);
        assert_eq!(budget.reason(), "what 2 sequences of 8192 tokens need");
        let unknown = KvBudget::decide(&KvDemand { available: None, ..demand() });
        assert_eq!(unknown.bytes, 32 * 8192 * 23_040);
    }

    #[test]
    fn models_of_one_process_share_what_is_given() {
        let budget = KvBudget::decide(&KvDemand { models: 2, ..demand() });
        assert_eq!(budget.bytes, 500 * MIB);
        assert_eq!(budget.reason(), "25 % of the 4000 MiB available to the cgroup, shared by 2 models");
        let budget = KvBudget::decide(&KvDemand { configured: Some(64 * MIB), models: 2, ..demand() });
        assert_eq!(budget.to_string(), "32 MiB for KV blocks: as configured, shared by 2 models");
    }
}
