use std::io::Write as _;

use super::*;

fn surroundings() -> Surroundings {
    Surroundings {
        home: Some("/home/me".into()),
        ..Surroundings::default()
    }
}

fn load(arguments: &[&str]) -> Result<Config, ConfigError> {
    let all = ["pipeletd"].iter().chain(arguments);
    Config::from(all, &surroundings())
}

#[test]
fn the_defaults_are_the_contracts() {
    let config = load(&[]).unwrap();
    assert_eq!(config.data_dir, Path::new("/home/me/.local/share/pipelet"));
    assert_eq!(config.http_listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.grpc_listen.to_string(), "127.0.0.1:50051");
    assert_eq!(config.ocpp_listen.to_string(), "127.0.0.1:9000");
    assert_eq!(
        config.retry_schedule,
        RetrySchedule::DEFAULT.parse().unwrap()
    );
    assert_eq!(config.max_attempts, 7);
    assert_eq!(config.delivery_timeout, Duration::from_secs(10));
    assert_eq!(config.retention, Duration::from_hours(24));
    assert_eq!(config.retention_size, ByteSize::gib(4));
    assert_eq!(config.heartbeat_interval, Duration::from_mins(5));
    assert!(!config.allow_private_targets);
    assert_eq!(config.authorize, Authorize::AcceptAll);
    assert!(config.ocpp_tls.is_none());
    assert_eq!(config.stations, StationsPolicy::Open);
    assert_eq!(config.ocpp_rate, Rate::new(1000.0, 4000.0));
    assert!(config.api_tls.is_none());
    assert_eq!(config.api_rate, Rate::new(200.0, 800.0));
    assert_eq!(config.api_max_connections, 256);
    assert_eq!(config.log_format, LogFormat::Json);
}

#[test]
fn dev_is_for_ones_own_machine() {
    let config = load(&["--dev"]).unwrap();
    assert!(config.allow_private_targets);
    assert_eq!(config.log_format, LogFormat::Text);
    assert!(
        !load(&["--dev", "--allow-private-targets=false"])
            .unwrap()
            .allow_private_targets
    );
}

#[test]
fn targets_are_allowed_one_by_one_or_as_a_list() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "allow-target = [\"10.1.0.0/16\", \"::1\"]").unwrap();
    let path = file.path().to_str().unwrap();
    let check = |arguments: &[&str], expected: &[&str]| {
        let expected: Vec<_> = expected.iter().map(|text| text.parse().unwrap()).collect();
        assert_eq!(load(arguments).unwrap().allow_targets, expected);
    };
    check(&[], &[]);
    check(&["--config", path], &["10.1.0.0/16", "::1"]);
    check(
        &[
            "--allow-target",
            "fd00::/8, 10.0.0.1",
            "--allow-target=10.2.0.0/16",
        ],
        &["fd00::/8", "10.0.0.1", "10.2.0.0/16"],
    );
    check(&["--config", path, "--allow-target", "::2"], &["::2"]);
}

#[test]
fn a_key_is_rotated_by_a_command_with_the_daemons_settings() {
    assert_eq!(load(&[]).unwrap().task, Task::Run);
    for arguments in [
        [
            "--data-dir=/d",
            "--secrets-key-file=/k",
            "rotate-secrets-key",
        ],
        [
            "rotate-secrets-key",
            "--data-dir=/d",
            "--secrets-key-file=/k",
        ],
    ] {
        let config = load(&arguments).unwrap();
        assert_eq!(config.task, Task::RotateSecretsKey);
        assert_eq!(config.data_dir, Path::new("/d"));
        assert_eq!(config.secrets_key_file.as_deref(), Some(Path::new("/k")));
    }
}

#[test]
fn a_flag_goes_before_the_file() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(
        file,
        "max-attempts = 3\nretention-size = \"1MiB\"\nauthorize = \"registered\"\nocpp-strict = true\n\
         stations = \"registered\"\nocpp-tls-listen = \"127.0.0.1:0\"\n\
         ocpp-tls-cert = \"c.pem\""
    )
    .unwrap();
    let path = file.path().to_str().unwrap();
    let config = load(&[
        "--config",
        path,
        "--max-attempts",
        "9",
        "--ocpp-tls-key",
        "k.pem",
    ])
    .unwrap();
    assert_eq!(config.max_attempts, 9);
    assert_eq!(config.retention_size.bytes(), 1 << 20);
    assert!(config.ocpp_strict);
    assert_eq!(config.authorize, Authorize::Registered);
    assert_eq!(config.stations, StationsPolicy::Registered);
    let files = config.ocpp_tls.unwrap().files;
    assert_eq!(files.certificate, Path::new("c.pem"));
    assert_eq!(files.key, Path::new("k.pem"));
}

#[test]
fn a_file_that_is_wrong_says_where() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "max-attempts = 3\nretry-shedule = \"1s\"").unwrap();
    let error = load(&["--config", file.path().to_str().unwrap()]).unwrap_err();
    assert!(error.is_of_file());
    assert!(error.to_string().contains("line 2"), "{error}");
    assert!(error.to_string().contains("retry-shedule"), "{error}");
    assert!(
        load(&["--config", "/there/is/none.toml"])
            .unwrap_err()
            .is_of_file()
    );
}

#[test]
fn nonsense_is_refused_with_its_name() {
    let check = |arguments: &[&str], expected: &str| {
        let error = load(arguments).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert!(!error.is_of_file());
    };
    check(
        &["--retry-schedule", "30s,soon"],
        "\"soon\" in the retry schedule",
    );
    check(&["--retry-schedule", ""], "at least one wait");
    check(&["--max-attempts", "0"], "max-attempts: it is at least 1");
    check(
        &["--delivery-timeout", "fast"],
        "delivery-timeout: \"fast\" is no time",
    );
    check(
        &["--ping-interval", "0s"],
        "ping-interval: \"0s\" is not between",
    );
    check(&["--http-listen", "nowhere"], "nowhere");
    check(&["--ocpp-rate", "0/s"], "ocpp-rate: \"0/s\": a rate is");
    check(&["--api-rate", "fast"], "api-rate: \"fast\": a rate is");
    check(
        &["--api-max-connections", "0"],
        "api-max-connections: it is",
    );
    for lonely in ["--api-tls-cert", "--api-tls-key"] {
        check(&[lonely, "c.pem"], "api-tls-cert: it goes together");
    }
    check(&["--stations", "some"], "some");
    check(
        &["--allow-target", "10.0.0.0/8,intranet"],
        "allow-target: \"intranet\" is no network",
    );
    for lonely in ["--ocpp-tls-cert", "--ocpp-client-ca"] {
        check(&[lonely, "c.pem"], "ocpp-tls-listen: it goes together");
    }
    check(&["--bootstrap-key", "x"], "unexpected argument");
}

#[test]
fn the_bootstrap_key_is_checked_and_never_shown() {
    let with = |key: &str| Surroundings {
        bootstrap_key: Some(key.to_owned()),
        ..surroundings()
    };
    let key = "hcpms_live_0123456789abcdef";
    let config = Config::from(["pipeletd"], &with(key)).unwrap();
    assert_eq!(config.bootstrap_key, Some(ApiKey::parse(key).unwrap()));
    assert!(!format!("{config:?}").contains(key));
    assert!(Config::from(["pipeletd"], &with("secret")).is_err());
}
