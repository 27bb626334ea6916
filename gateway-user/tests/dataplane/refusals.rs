//! What must not be: each refusal names its remedy and changes nothing.

use std::fs;

use aya::maps::{Array, Map, MapData};
use aya::programs::{Xdp, XdpMode as Flags};
use gateway_common::layout::{Settings, map_name};
use gateway_user::dataplane::{self, Dataplane, DataplaneError, SWEEP_BUDGET};
use gateway_user::telemetry::Telemetry;
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

use crate::lab::{Lab, MAPS, NEAR, forward, with_lab, xdp_on};
use crate::tables::{fill, some_tables};

fn refusal(lab: &Lab) -> DataplaneError {
    Dataplane::open(&lab.options()).err().expect("it must be refused")
}

#[test]
fn an_interface_that_does_not_exist_is_named_beside_those_that_do() {
    with_lab(|lab| {
        let mut options = lab.options();
        options.interfaces = vec!["gwb-none".to_owned()];
        let error = Dataplane::open(&options).err().unwrap();
        assert!(matches!(error, DataplaneError::InterfaceUnknown { .. }), "{error}");
        let words = error.to_string();
        assert!(words.contains("gwb-none") && words.contains(NEAR), "{words}");
        assert_eq!(lab.pins(), Vec::<String>::new());
    });
}

#[test]
fn somebody_elses_program_stays_where_it_is() {
    with_lab(|lab| {
        let mut foreign = aya::Ebpf::load(dataplane::object::BYTES).unwrap();
        let program: &mut Xdp = foreign.program_mut("gateway").unwrap().try_into().unwrap();
        program.load().unwrap();
        program.attach(NEAR, Flags::Driver).unwrap();
        let id = program.info().unwrap().id();

        let error = refusal(lab);
        let DataplaneError::ForeignProgram { id: named, program, .. } = &error else {
            panic!("{error}")
        };
        assert_eq!((*named, program.as_str()), (id, "gateway"));
        assert!(crate::lab::ip(&format!("-d link show dev {NEAR}")).contains(&format!("id {id}")));
    });
}

#[test]
fn an_interface_without_forwarding_is_refused_with_the_sysctl() {
    with_lab(|lab| {
        forward(NEAR, false);
        let words = refusal(lab).to_string();
        assert!(words.contains(&format!("sysctl -w net/ipv4/conf/{NEAR}/forwarding=1")), "{words}");
        assert_eq!(xdp_on(NEAR), None);
    });
}

#[test]
fn nat_ports_that_the_host_uses_are_refused_until_reserved() {
    with_lab(|lab| {
        let ours = "/proc/sys/net/ipv4/ip_local_port_range";
        fs::write(ours, "20000 40000").unwrap();
        let words = refusal(lab).to_string();
        assert!(words.contains("ip_local_reserved_ports=10000-32767"), "{words}");
        fs::write("/proc/sys/net/ipv4/ip_local_reserved_ports", "10000-32767").unwrap();
        Dataplane::open(&lab.options()).unwrap();
    });
}

#[test]
fn a_second_daemon_is_refused_while_the_first_runs() {
    with_lab(|lab| {
        let first = Dataplane::open(&lab.options()).unwrap();
        let error = refusal(lab);
        assert!(matches!(error, DataplaneError::InUse { .. }), "{error}");
        let error = dataplane::detach(&lab.pin_dir).err().unwrap();
        assert!(matches!(error, DataplaneError::InUse { .. }), "{error}");
        drop(first);
        assert!(Dataplane::open(&lab.options()).unwrap().adopted());
    });
}

#[test]
fn maps_of_another_layout_are_refused_while_they_forward() {
    with_lab(|lab| {
        drop(Dataplane::open(&lab.options()).unwrap());
        set_layout(lab, 999);
        let error = refusal(lab);
        assert!(matches!(error, DataplaneError::OtherLayout { found: 999, .. }), "{error}");
        assert!(error.to_string().contains("gateway detach"), "{error}");
        assert!(xdp_on(NEAR).is_some(), "it goes on forwarding");
    });
}

#[test]
fn maps_of_another_layout_that_nothing_uses_are_replaced() {
    with_lab(|lab| {
        drop(Dataplane::open(&lab.options()).unwrap());
        set_layout(lab, 999);
        fs::remove_file(lab.pin(&format!("link-{NEAR}"))).unwrap();
        crate::lab::eventually("the kernel to let go of the link", || xdp_on(NEAR).is_none());
        assert!(!Dataplane::open(&lab.options()).unwrap().adopted());
    });
}

#[test]
fn a_start_that_was_cut_short_leaves_nothing_in_the_way() {
    with_lab(|lab| {
        drop(Dataplane::open(&lab.options()).unwrap());
        let link = lab.pin(&format!("link-{NEAR}"));
        for unfinished in [map_name::SETTINGS, map_name::FLOWS] {
            fs::remove_file(&link).unwrap();
            fs::remove_file(lab.pin(unfinished)).unwrap();
            crate::lab::eventually("the kernel to let go of the link", || xdp_on(NEAR).is_none());
            Dataplane::open(&lab.options()).unwrap();
            assert_eq!(lab.pins().len(), MAPS + 1, "after {unfinished} was missing");
        }
    });
}

#[test]
fn missing_maps_under_a_program_that_forwards_are_refused() {
    with_lab(|lab| {
        drop(Dataplane::open(&lab.options()).unwrap());
        fs::remove_file(lab.pin(map_name::SETTINGS)).unwrap();
        let error = refusal(lab);
        assert!(matches!(error, DataplaneError::ForeignMap { .. }), "{error}");
        assert!(error.to_string().contains("gateway detach"), "{error}");
    });
}

#[test]
fn another_flow_table_size_is_refused_while_flows_live() {
    with_lab(|lab| {
        drop(Dataplane::open(&lab.options()).unwrap());
        let mut options = lab.options();
        options.flows_max = 2_048;
        let error = Dataplane::open(&options).err().unwrap();
        let expected = (1_024, 2_048);
        let DataplaneError::FlowsMaxChanged { pinned, wanted, .. } = error else {
            panic!("{error}")
        };
        assert_eq!((pinned, wanted), expected);
        dataplane::detach(&lab.pin_dir).unwrap();
        Dataplane::open(&options).unwrap();
    });
}

#[test]
fn a_directory_that_is_no_bpf_file_system_is_refused() {
    with_lab(|lab| {
        let mut options = lab.options();
        options.pin_dir = std::env::temp_dir().join("gateway-test-pins");
        let error = Dataplane::open(&options).err().unwrap();
        assert!(matches!(error, DataplaneError::NotBpffs { .. }), "{error}");
        assert!(!options.pin_dir.exists());
    });
}

#[test]
fn missing_capabilities_are_named() {
    with_lab(|lab| {
        let held = capabilities(None).unwrap().effective;
        let fewer = held - (CapabilitySet::BPF | CapabilitySet::SYS_ADMIN);
        let refused = with_capabilities(fewer, || {
            [refusal(lab), dataplane::detach(&lab.pin_dir).expect_err("as well")]
        });
        for error in refused {
            assert!(matches!(error, DataplaneError::MissingCapabilities { .. }), "{error}");
            let words = error.to_string();
            assert!(words.contains("CAP_BPF"), "{words}");
            assert!(!words.contains("CAP_NET_ADMIN"), "{words}");
        }
    });
}

#[test]
fn the_capabilities_that_are_asked_for_are_enough() {
    with_lab(|lab| {
        let asked = CapabilitySet::BPF | CapabilitySet::PERFMON | CapabilitySet::NET_ADMIN;
        for is_adopted in [false, true] {
            let opened = with_capabilities(asked, || Dataplane::open(&lab.options()));
            assert_eq!(opened.unwrap().adopted(), is_adopted);
        }
        with_capabilities(asked, || dataplane::detach(&lab.pin_dir)).unwrap();
    });
}

#[test]
fn a_data_plane_that_is_open_needs_one_capability() {
    with_lab(|lab| {
        let mut dataplane = Dataplane::open(&lab.options()).unwrap();
        with_capabilities(CapabilitySet::BPF, || {
            fill(&mut dataplane);
            assert_eq!(dataplane.read_tables().unwrap(), some_tables());
            dataplane.counters().unwrap();
            let (telemetry, _observations) = Telemetry::new();
            dataplane.sweep(gateway_user::clock::now(), SWEEP_BUDGET, &telemetry);
            assert_eq!(dataplane.detach().unwrap().interfaces, [NEAR]);
        });
        assert_eq!(xdp_on(NEAR), None);
    });
}

/// What `task` answers while this thread may do no more than `effective` says.
fn with_capabilities<T>(effective: CapabilitySet, task: impl FnOnce() -> T) -> T {
    let held = capabilities(None).unwrap();
    set_capabilities(None, CapabilitySets { effective, ..held }).unwrap();
    let answer = task();
    set_capabilities(None, held).unwrap();
    answer
}

#[test]
fn a_kernel_that_refuses_bpf_is_told_apart_from_a_missing_capability() {
    with_lab(|lab| {
        for (errno, likely) in [
            (libc::EPERM, "a seccomp filter or a security module forbids it"),
            (libc::ENOSYS, "built without CONFIG_BPF_SYSCALL, or a seccomp filter hides the call"),
        ] {
            let options = lab.options();
            let refused = without_bpf(errno, move || {
                let opening = Dataplane::open(&options).err().expect("it must be refused");
                let detaching = dataplane::detach(&options.pin_dir).expect_err("as well");
                [opening, detaching]
            });
            for error in refused {
                let DataplaneError::BpfUnavailable { source } = &error else { panic!("{error}") };
                assert_eq!(source.raw_os_error(), Some(errno));
                let words = error.to_string();
                assert!(
                    words.contains(likely) && words.contains("SystemCallFilter=bpf"),
                    "{words}"
                );
            }
        }
        assert_eq!((xdp_on(NEAR), lab.pins()), (None, Vec::new()), "nothing was changed");
    });
}

/// What `task` answers on a thread whose calls of bpf(2) a seccomp filter answers with `errno`. The
/// thread ends with it, since nobody can take a filter off again.
fn without_bpf<T: Send + 'static>(errno: i32, task: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = std::thread::spawn(move || {
        let filter = SeccompFilter::new(
            [(libc::SYS_bpf, Vec::new())].into(),
            SeccompAction::Allow,
            SeccompAction::Errno(errno.cast_unsigned()),
            std::env::consts::ARCH.try_into().unwrap(),
        );
        seccompiler::apply_filter(&BpfProgram::try_from(filter.unwrap()).unwrap()).unwrap();
        task()
    });
    thread.join().unwrap()
}

fn set_layout(lab: &Lab, version: u32) {
    let map = MapData::from_pin(lab.pin(map_name::SETTINGS)).unwrap();
    let mut map: Array<_, Settings> = Map::Array(map).try_into().unwrap();
    let settings = map.get(&0, 0).unwrap();
    map.set(0, Settings { layout_version: version, ..settings }, 0).unwrap();
}
