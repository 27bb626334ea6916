//! Attaching, outliving the daemon, being adopted, going away.

use std::fs;
use std::os::unix::fs::MetadataExt;

use gateway_user::dataplane::{self, AttachMode, Attachment, Dataplane, DataplaneError, XdpMode};

use crate::lab::{FAR, MAPS, NEAR, forward, ip, run, with_lab, xdp_on};
use crate::tables::{fill, some_tables};

fn only(dataplane: &Dataplane) -> &Attachment {
    let [attachment] = dataplane.attachments() else { panic!("{:?}", dataplane.attachments()) };
    attachment
}

#[test]
fn the_program_runs_natively_and_outlives_the_daemon() {
    with_lab(|lab| {
        let dataplane = Dataplane::open(&lab.options()).unwrap();
        let attachment = only(&dataplane);
        assert_eq!((attachment.mode, attachment.adopted), (AttachMode::Native, false));
        assert_eq!(attachment.interface, NEAR);
        assert!(!dataplane.adopted());
        drop(dataplane);
        assert_eq!(xdp_on(NEAR).as_deref(), Some("xdp"));
        let pins = lab.pins();
        assert_eq!(pins.len(), MAPS + 1, "{pins:?}");
        assert!(pins.contains(&format!("link-{NEAR}")));
    });
}

#[test]
fn a_new_daemon_adopts_links_tables_and_seed() {
    with_lab(|lab| {
        let mut first = Dataplane::open(&lab.options()).unwrap();
        fill(&mut first);
        let seed = crate::tables::settings(lab).hash_seed;
        let link = fs::metadata(lab.pin(&format!("link-{NEAR}"))).unwrap();
        drop(first);

        let second = Dataplane::open(&lab.options()).unwrap();
        assert!(second.adopted() && only(&second).adopted);
        assert_eq!(only(&second).mode, AttachMode::Native);
        assert_eq!(second.read_tables().unwrap(), some_tables());
        assert_eq!(crate::tables::settings(lab).hash_seed, seed);
        let kept = fs::metadata(lab.pin(&format!("link-{NEAR}"))).unwrap();
        assert_eq!(kept.ino(), link.ino(), "the link itself was kept");
    });
}

#[test]
fn adopted_maps_keep_the_seed_that_their_flows_are_found_by() {
    with_lab(|lab| {
        let mut options = lab.options();
        options.hash_seed = Some(7);
        drop(Dataplane::open(&options).unwrap());
        assert_eq!(crate::tables::settings(lab).hash_seed, 7);
        options.hash_seed = Some(8);
        drop(Dataplane::open(&options).unwrap());
        assert_eq!(crate::tables::settings(lab).hash_seed, 7);
    });
}

#[test]
fn detaching_removes_everything_and_the_next_start_is_new() {
    with_lab(|lab| {
        for _ in 0..3 {
            let dataplane = Dataplane::open(&lab.options()).unwrap();
            assert!(!dataplane.adopted());
            let detached = dataplane.detach().unwrap();
            assert_eq!(detached.interfaces, [NEAR]);
            assert_eq!(detached.maps.len(), MAPS);
            assert_eq!(xdp_on(NEAR), None);
            assert!(!lab.pin_dir.exists());
        }
    });
}

#[test]
fn programs_of_traffic_control_stay_where_they_are() {
    with_lab(|lab| {
        // The least program there is, of one instruction: every packet is of no class.
        let code = tempfile::NamedTempFile::new().unwrap();
        fs::write(&code, "1,6 0 0 0").unwrap();
        run("tc", &format!("qdisc add dev {NEAR} clsact"));
        for way in ["ingress", "egress"] {
            let code = code.path().display();
            run("tc", &format!("filter add dev {NEAR} {way} bpf bytecode-file {code}"));
        }
        let shown = |way| run("tc", &format!("filter show dev {NEAR} {way}"));
        let filters = || ["ingress", "egress"].map(shown);
        let before = filters();
        assert!(before.iter().all(|shown| shown.contains("bytecode")), "{before:?}");
        for _ in 0..2 {
            drop(Dataplane::open(&lab.options()).unwrap());
            assert_eq!((xdp_on(NEAR).as_deref(), filters()), (Some("xdp"), before.clone()));
        }
        dataplane::detach(&lab.pin_dir).unwrap();
        assert_eq!((xdp_on(NEAR), filters()), (None, before));
    });
}

#[test]
fn what_a_killed_daemon_left_is_detached_without_one() {
    with_lab(|lab| {
        drop(Dataplane::open(&lab.options()).unwrap());
        assert_eq!(dataplane::detach(&lab.pin_dir).unwrap().interfaces, [NEAR]);
        assert_eq!(xdp_on(NEAR), None);
        assert!(!lab.pin_dir.exists());
        let again = dataplane::detach(&lab.pin_dir).unwrap();
        assert_eq!(again, dataplane::Detached::default(), "nothing left is no error");
    });
}

#[test]
fn an_interface_that_left_the_configuration_is_detached() {
    with_lab(|lab| {
        ip("link add gwb-more type veth peer name gwb-other");
        ip("link set gwb-more up");
        forward("gwb-more", true);
        let mut options = lab.options();
        options.interfaces.push("gwb-more".to_owned());
        drop(Dataplane::open(&options).unwrap());
        assert!(xdp_on("gwb-more").is_some());

        let dataplane = Dataplane::open(&lab.options()).unwrap();
        assert!(only(&dataplane).adopted);
        assert_eq!(xdp_on("gwb-more"), None);
        assert!(!lab.pins().contains(&"link-gwb-more".to_owned()));
    });
}

#[test]
fn an_interface_that_was_made_anew_is_attached_anew() {
    with_lab(|lab| {
        drop(Dataplane::open(&lab.options()).unwrap());
        ip(&format!("link del {NEAR}"));
        ip(&format!("link add {NEAR} type veth peer name {FAR}"));
        ip(&format!("link set {NEAR} up"));
        forward(NEAR, true);
        let dataplane = Dataplane::open(&lab.options()).unwrap();
        assert!(dataplane.adopted(), "the maps");
        assert!(!only(&dataplane).adopted, "the link");
        assert!(xdp_on(NEAR).is_some());
    });
}

#[test]
fn where_the_driver_cannot_the_network_stack_does() {
    with_lab(|lab| {
        forward("lo", true);
        let mut options = lab.options();
        options.interfaces = vec!["lo".to_owned()];
        options.xdp_mode = XdpMode::Native;
        let refused = Dataplane::open(&options).err().unwrap();
        assert!(matches!(refused, DataplaneError::NativeModeRefused { .. }), "{refused}");
        assert!(refused.to_string().contains("xdp_mode = \"generic\""), "{refused}");
        assert_eq!((xdp_on("lo"), lab.pins()), (None, Vec::new()), "nothing stays");

        options.xdp_mode = XdpMode::Auto;
        let dataplane = Dataplane::open(&options).unwrap();
        assert_eq!(only(&dataplane).mode, AttachMode::Generic);
        assert_eq!(xdp_on("lo").as_deref(), Some("xdpgeneric"));
    });
}

#[test]
fn another_mode_is_taken_up_at_the_next_start() {
    with_lab(|lab| {
        drop(Dataplane::open(&lab.options()).unwrap());
        let mut options = lab.options();
        for (wanted, mode) in [
            (XdpMode::Generic, AttachMode::Generic),
            (XdpMode::Auto, AttachMode::Generic),
            (XdpMode::Native, AttachMode::Native),
        ] {
            options.xdp_mode = wanted;
            assert_eq!(only(&Dataplane::open(&options).unwrap()).mode, mode, "{wanted:?}");
        }
    });
}

#[test]
fn the_bpf_file_system_is_mounted_where_it_is_missing() {
    with_lab(|lab| {
        lab.hide_bpffs();
        drop(Dataplane::open(&lab.options()).unwrap());
        assert_eq!(lab.pins().len(), MAPS + 1);
    });
}

#[test]
fn a_start_that_fails_at_its_second_interface_leaves_the_first_alone() {
    with_lab(|lab| {
        forward("lo", true);
        let mut options = lab.options();
        options.xdp_mode = XdpMode::Native;
        options.interfaces.push("lo".to_owned());
        assert!(Dataplane::open(&options).is_err());
        assert_eq!((xdp_on(NEAR), lab.pins()), (None, Vec::new()), "a new start");

        drop(Dataplane::open(&lab.options()).unwrap());
        assert!(Dataplane::open(&options).is_err());
        assert!(xdp_on(NEAR).is_some(), "an adopted one goes on forwarding");
        assert!(only(&Dataplane::open(&lab.options()).unwrap()).adopted);
    });
}
