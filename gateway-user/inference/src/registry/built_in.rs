//! The models that ship, built in: a daemon without any folder of models has them.

use gateway_core::ladder::Task;

use crate::artefact::BuiltIn;

/// Of a task.
pub(super) fn built_in(task: Task) -> &'static BuiltIn {
    match task {
        Task::Fault => &FAULT,
        Task::Forecast => &FORECAST,
        // What makes classes of requests makes those of clients.
        Task::Classes | Task::Clients => &CLASSES,
    }
}

macro_rules! file {
    ($folder:literal, $name:literal) => {
        ($name, include_bytes!(concat!("../../../../", $folder, "/", $name)) as &[u8])
    };
}

static CLASSES: BuiltIn = BuiltIn {
    folder: "models/classes",
    files: &[
        file!("models/classes", "classes.json"),
        file!("models/classes", "features.json"),
        file!("models/classes", "golden.json"),
        file!("models/classes", "metrics.json"),
    ],
};

static FAULT: BuiltIn = BuiltIn {
    folder: "models/fault",
    files: &[
        file!("models/fault", "forest.json"),
        file!("models/fault", "features.json"),
        file!("models/fault", "golden.json"),
        file!("models/fault", "metrics.json"),
    ],
};

static FORECAST: BuiltIn = BuiltIn {
    folder: "models/forecast",
    files: &[
        file!("models/forecast", "model.onnx"),
        file!("models/forecast", "features.json"),
        file!("models/forecast", "golden.json"),
        file!("models/forecast", "metrics.json"),
    ],
};
