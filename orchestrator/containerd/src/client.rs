//! The calls to containerd that we make, each with its time limit, and errors that tell a refusal from a lost connection.
//!
//! Only what containerd 1.6 and 2.x both have is used. Nothing here knows containers of ours.

use std::collections::HashMap;
use std::future::Future;
use std::path::Path;
use std::time::Duration;

use containerd_client::services::v1::container::Runtime;
use containerd_client::services::v1::{
    Container, CreateContainerRequest, CreateTaskRequest, DeleteContainerRequest,
    DeleteProcessRequest, DeleteTaskRequest, ExecProcessRequest, KillRequest,
    ListContainersRequest, ListTasksRequest, StartRequest, SubscribeRequest,
    UpdateContainerRequest, WaitRequest, containers_client::ContainersClient,
    events_client::EventsClient, tasks_client::TasksClient, version_client::VersionClient,
};
use containerd_client::types::v1::{Process, Status as TaskStatus};
use prost_types::{Any, FieldMask};
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};

/// Time for a call that only looks something up or writes a record.
const SHORT: Duration = Duration::from_secs(10);
/// Time for a call that starts a shim or a process: slow flash memory and a loaded processor included.
const LONG: Duration = Duration::from_secs(60);
/// Time for the answer to the question whether containerd is there.
const PING: Duration = Duration::from_secs(3);

const RUNTIME: &str = "io.containerd.runc.v2";
const RUNTIME_OPTIONS: &str = "containerd.runc.v1.Options";
const SPEC_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";
const PROCESS_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";

/// Why a call had no success.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// containerd said no.
    #[error("containerd cannot {operation}: {message}")]
    Refused {
        operation: &'static str,
        code: Code,
        message: String,
    },
    /// containerd did not answer: it is gone or hangs.
    #[error("containerd does not answer (asked to {operation}): {reason}")]
    Lost {
        operation: &'static str,
        reason: String,
    },
}

impl CallError {
    pub(crate) fn is(&self, wanted: Code) -> bool {
        match self {
            Self::Refused { code, .. } => *code == wanted,
            Self::Lost { .. } => false,
        }
    }

    /// Whether what is to be made is there already, for containerd or for the system calls that it makes.
    pub(crate) fn is_in_the_way(&self) -> bool {
        match self {
            Self::Refused { code, message, .. } => {
                *code == Code::AlreadyExists || message.contains("file exists")
            }
            Self::Lost { .. } => false,
        }
    }

    pub(crate) fn is_lost(&self) -> bool {
        match self {
            Self::Refused { .. } => false,
            Self::Lost { .. } => true,
        }
    }
}

/// A result in which "it is not there" is as good as success.
pub(crate) fn gone_is_fine(result: Result<(), CallError>) -> Result<(), CallError> {
    match result {
        Err(error) if error.is(Code::NotFound) => Ok(()),
        other => other,
    }
}

/// What containerd's store says of one container.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) id: String,
    pub(crate) labels: HashMap<String, String>,
}

/// What a task is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TaskPhase {
    Created,
    Running,
    Stopped { exit: u32 },
}

/// One connection to containerd. Cheap to clone; it does not come back when it is lost.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    channel: Channel,
    namespace: AsciiMetadataValue,
}

impl Client {
    /// Connects and asks for the version.
    pub(crate) async fn connect(
        socket: &Path,
        namespace: AsciiMetadataValue,
    ) -> Result<Self, CallError> {
        let lost = |reason: String| CallError::Lost {
            operation: "connect",
            reason,
        };
        // tonic's errors hide the interesting half in their sources.
        let probe = tokio::time::timeout(PING, tokio::net::UnixStream::connect(socket));
        match probe.await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(lost(format!("{}: {error}", socket.display()))),
            Err(_) => return Err(lost(format!("{}: no answer", socket.display()))),
        }
        let channel = tokio::time::timeout(PING, containerd_client::connect(socket))
            .await
            .map_err(|_| lost(format!("{}: no answer", socket.display())))?
            .map_err(|error| lost(format!("{}: {error}", socket.display())))?;
        let client = Self { channel, namespace };
        client.ping().await?;
        Ok(client)
    }

    /// Whether containerd answers; its version.
    pub(crate) async fn ping(&self) -> Result<String, CallError> {
        let mut version = VersionClient::new(self.channel.clone());
        let answer = call("tell its version", PING, version.version(Request::new(()))).await?;
        Ok(answer.version)
    }

    /// Ends when the connection is lost: a stream of events of which none is expected.
    pub(crate) async fn until_lost(&self) -> CallError {
        let filters = vec![r#"topic=="/coxswain/none""#.to_owned()];
        let mut events = EventsClient::new(self.channel.clone());
        let opened = events
            .subscribe(self.request(SubscribeRequest { filters }))
            .await;
        let mut stream: Streaming<_> = match opened {
            Ok(stream) => stream.into_inner(),
            Err(status) => return refused("watch its events", &status),
        };
        loop {
            match stream.message().await {
                Ok(Some(_)) => {}
                Ok(None) => {
                    return CallError::Lost {
                        operation: "watch its events",
                        reason: "it closed the connection".to_owned(),
                    };
                }
                Err(status) => return refused("watch its events", &status),
            }
        }
    }

    /// Every container of the namespace, one at a time so that the specs are never in memory together.
    pub(crate) async fn containers(&self) -> Result<Vec<Listed>, CallError> {
        const WHAT: &str = "list containers";
        let mut containers = ContainersClient::new(self.channel.clone());
        let request = self.request(ListContainersRequest {
            filters: Vec::new(),
        });
        let mut stream = call(WHAT, SHORT, containers.list_stream(request)).await?;
        let mut found = Vec::new();
        while let Some(message) = within(WHAT, SHORT, stream.message()).await? {
            if let Some(container) = message.container {
                found.push(Listed {
                    id: container.id,
                    labels: container.labels,
                });
            }
        }
        Ok(found)
    }

    /// Every task of the namespace.
    pub(crate) async fn tasks(&self) -> Result<Vec<(String, TaskPhase, u32)>, CallError> {
        let request = self.request(ListTasksRequest::default());
        let answer = call("list tasks", LONG, self.task_service().list(request)).await?;
        Ok(answer
            .tasks
            .into_iter()
            .map(|task| {
                let phase = phase_of(&task);
                // 1.6 leaves the container's id empty in lists and fills the process's.
                let id = if task.container_id.is_empty() {
                    task.id
                } else {
                    task.container_id
                };
                (id, phase, task.pid)
            })
            .collect())
    }

    /// Writes a container into containerd's store.
    pub(crate) async fn create_container(
        &self,
        id: &str,
        labels: HashMap<String, String>,
        spec: Vec<u8>,
        runc_root: &Path,
    ) -> Result<(), CallError> {
        let container = Container {
            id: id.to_owned(),
            labels,
            runtime: Some(Runtime {
                name: RUNTIME.to_owned(),
                options: Some(Any {
                    type_url: RUNTIME_OPTIONS.to_owned(),
                    value: runtime_options(runc_root),
                }),
            }),
            spec: Some(Any {
                type_url: SPEC_TYPE.to_owned(),
                value: spec,
            }),
            ..Container::default()
        };
        let request = self.request(CreateContainerRequest {
            container: Some(container),
        });
        let mut containers = ContainersClient::new(self.channel.clone());
        call("create a container", SHORT, containers.create(request)).await?;
        Ok(())
    }

    /// Sets one label.
    pub(crate) async fn set_label(
        &self,
        id: &str,
        key: &str,
        value: &str,
    ) -> Result<(), CallError> {
        let container = Container {
            id: id.to_owned(),
            labels: HashMap::from([(key.to_owned(), value.to_owned())]),
            ..Container::default()
        };
        let request = self.request(UpdateContainerRequest {
            container: Some(container),
            update_mask: Some(FieldMask {
                paths: vec![format!("labels.{key}")],
            }),
        });
        let mut containers = ContainersClient::new(self.channel.clone());
        call("label a container", SHORT, containers.update(request)).await?;
        Ok(())
    }

    /// Removes a container from containerd's store.
    pub(crate) async fn delete_container(&self, id: &str) -> Result<(), CallError> {
        let request = self.request(DeleteContainerRequest { id: id.to_owned() });
        let mut containers = ContainersClient::new(self.channel.clone());
        call("delete a container", SHORT, containers.delete(request)).await
    }

    /// Starts a shim and creates the first process, not yet running; its number.
    pub(crate) async fn create_task(
        &self,
        id: &str,
        stdout: &str,
        stderr: &str,
    ) -> Result<u32, CallError> {
        let request = self.request(CreateTaskRequest {
            container_id: id.to_owned(),
            stdout: stdout.to_owned(),
            stderr: stderr.to_owned(),
            ..CreateTaskRequest::default()
        });
        let answer = call("create a task", LONG, self.task_service().create(request)).await?;
        Ok(answer.pid)
    }

    /// Lets the first process run, or one that was added to a task.
    pub(crate) async fn start(&self, id: &str, exec: &str) -> Result<(), CallError> {
        let request = self.request(StartRequest {
            container_id: id.to_owned(),
            exec_id: exec.to_owned(),
        });
        call("start a process", LONG, self.task_service().start(request)).await?;
        Ok(())
    }

    /// Waits for the end of a process, without a time limit; its exit code.
    pub(crate) async fn wait(&self, id: &str, exec: &str) -> Result<u32, CallError> {
        let request = self.request(WaitRequest {
            container_id: id.to_owned(),
            exec_id: exec.to_owned(),
        });
        match self.task_service().wait(request).await {
            Ok(answer) => Ok(answer.into_inner().exit_status),
            Err(status) => Err(refused("wait for a process", &status)),
        }
    }

    /// Sends a signal; that nothing is left to get it is no error.
    pub(crate) async fn kill(&self, id: &str, exec: &str, signal: u32) -> Result<(), CallError> {
        let request = self.request(KillRequest {
            container_id: id.to_owned(),
            exec_id: exec.to_owned(),
            signal,
            all: false,
        });
        gone_is_fine(call("signal a process", SHORT, self.task_service().kill(request)).await)
    }

    /// Removes a task whose process has ended, and its shim.
    pub(crate) async fn delete_task(&self, id: &str) -> Result<(), CallError> {
        let request = self.request(DeleteTaskRequest {
            container_id: id.to_owned(),
        });
        call("delete a task", LONG, self.task_service().delete(request)).await?;
        Ok(())
    }

    /// Adds a process to a task, not yet running, its output dropped.
    pub(crate) async fn exec(
        &self,
        id: &str,
        exec: &str,
        process: Vec<u8>,
    ) -> Result<(), CallError> {
        let request = self.request(ExecProcessRequest {
            container_id: id.to_owned(),
            exec_id: exec.to_owned(),
            spec: Some(Any {
                type_url: PROCESS_TYPE.to_owned(),
                value: process,
            }),
            ..ExecProcessRequest::default()
        });
        call("add a process", SHORT, self.task_service().exec(request)).await
    }

    /// Removes an added process that has ended.
    pub(crate) async fn delete_exec(&self, id: &str, exec: &str) -> Result<(), CallError> {
        let request = self.request(DeleteProcessRequest {
            container_id: id.to_owned(),
            exec_id: exec.to_owned(),
        });
        call(
            "remove a process",
            SHORT,
            self.task_service().delete_process(request),
        )
        .await?;
        Ok(())
    }

    fn task_service(&self) -> TasksClient<Channel> {
        TasksClient::new(self.channel.clone())
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request
            .metadata_mut()
            .insert("containerd-namespace", self.namespace.clone());
        request
    }
}

fn phase_of(task: &Process) -> TaskPhase {
    match task.status() {
        TaskStatus::Stopped | TaskStatus::Unknown => TaskPhase::Stopped {
            exit: task.exit_status,
        },
        TaskStatus::Created => TaskPhase::Created,
        TaskStatus::Running | TaskStatus::Paused | TaskStatus::Pausing => TaskPhase::Running,
    }
}

/// `containerd.runc.v1.Options` with its field 7, `root`, in protobuf's encoding.
fn runtime_options(runc_root: &Path) -> Vec<u8> {
    let root = runc_root.to_string_lossy();
    let mut bytes = vec![7 << 3 | 2];
    let mut length = root.len();
    loop {
        let [low, ..] = length.to_le_bytes();
        length >>= 7;
        if length == 0 {
            bytes.push(low & 0x7f);
            break;
        }
        bytes.push(low | 0x80);
    }
    bytes.extend_from_slice(root.as_bytes());
    bytes
}

async fn call<T>(
    operation: &'static str,
    limit: Duration,
    answer: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, CallError> {
    within(operation, limit, answer)
        .await
        .map(tonic::Response::into_inner)
}

async fn within<T>(
    operation: &'static str,
    limit: Duration,
    answer: impl Future<Output = Result<T, Status>>,
) -> Result<T, CallError> {
    match tokio::time::timeout(limit, answer).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(status)) => Err(refused(operation, &status)),
        Err(_) => Err(CallError::Lost {
            operation,
            reason: format!("no answer within {} s", limit.as_secs()),
        }),
    }
}

/// A status that came over the wire has no source; one that tonic made of a broken connection has one.
fn refused(operation: &'static str, status: &Status) -> CallError {
    let mut source = std::error::Error::source(status);
    if let Some(first) = source {
        let mut reason = first.to_string();
        source = first.source();
        while let Some(next) = source {
            reason = next.to_string();
            source = next.source();
        }
        return CallError::Lost { operation, reason };
    }
    CallError::Refused {
        operation,
        code: status.code(),
        message: status.message().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_protobuf() {
        assert_eq!(runtime_options(Path::new("/r")), [0x3a, 2, b'/', b'r']);
        let long = "x".repeat(300);
        let bytes = runtime_options(Path::new(&long));
        assert_eq!(bytes.get(..3), Some(&[0x3a, 0xac, 0x02][..]));
        assert_eq!(bytes.len(), 303);
    }
}
