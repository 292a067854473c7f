//! What members ask each other: what only the one that leads can do and is no command.

use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message;
use quorate::AskError;
use tonic::{Code, Status};

use crate::member::Member;
use crate::proto::host::{Answer, Failure, Question, answer, question};
use crate::status;

/// Pause before the one that leads is asked again.
const PAUSE: Duration = Duration::from_millis(20);

/// Why a question was not answered.
pub(crate) enum Unanswered {
    /// The one that was asked does not lead (any more), or cannot be sure of it. Nothing was done.
    NotLeader,
    /// An answer to the client.
    Status(Status),
}

impl From<Status> for Unanswered {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

impl Member {
    /// Has a question answered by whoever leads, be it this member, and goes on trying for the time that a request has.
    pub(crate) async fn ask_leader(
        &self,
        question: question::Question,
    ) -> Result<answer::Answer, Status> {
        let deadline = Instant::now() + self.0.request_timeout;
        let mut failure = status::no_leader();
        loop {
            if *self.0.stopping.borrow() {
                return Err(status::stopped());
            }
            match self.0.node.leader().0 {
                Some(leader) if leader.0 == self.0.member_id => {
                    match self.answer(question.clone()).await {
                        Err(Unanswered::NotLeader) => failure = status::not_primary(),
                        Err(Unanswered::Status(status)) => return Err(status),
                        Ok(answer) => return Ok(answer),
                    }
                }
                Some(leader) => {
                    let asked = Question { question: Some(question.clone()) }.encode_to_vec();
                    let limit = deadline.saturating_duration_since(Instant::now());
                    match self.0.node.ask(leader, &asked, limit).await {
                        Ok(bytes) => match decode(bytes)? {
                            answer::Answer::Failure(why) if why.not_leader => {}
                            answer::Answer::Failure(why) => {
                                return Err(Status::new(Code::from_i32(why.code), why.message));
                            }
                            answer => return Ok(answer),
                        },
                        // It was not seen, so it can be asked again.
                        Err(AskError::NotConnected | AskError::Declined) => {
                            failure = status::timed_out_by_connection();
                        }
                        Err(AskError::TimedOut) => return Err(status::timed_out_by_connection()),
                        Err(AskError::Busy) => return Err(status::too_many_requests()),
                        Err(_) => return Err(status::stopped()),
                    }
                }
                None => failure = status::no_leader(),
            }
            if Instant::now() + PAUSE >= deadline {
                return Err(failure);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Answers a question as the one that leads.
    async fn answer(&self, question: question::Question) -> Result<answer::Answer, Unanswered> {
        match question {
            question::Question::KeepAlive(id) => {
                self.renew(id).await.map(answer::Answer::KeepAlive)
            }
            question::Question::TimeToLive(request) => {
                self.time_to_live(request).await.map(answer::Answer::TimeToLive)
            }
            question::Question::MemberAdd(request) => {
                self.add_member(request).await.map(answer::Answer::Changed)
            }
            question::Question::MemberRemove(id) => {
                self.remove_member(id).await.map(answer::Answer::Changed)
            }
            question::Question::MemberPromote(id) => {
                self.promote_member(id).await.map(answer::Answer::Changed)
            }
            question::Question::MemberUpdate(request) => {
                self.update_member(request).await.map(answer::Answer::Changed)
            }
        }
    }

    /// Answers a question of another member.
    pub(crate) async fn answer_bytes(&self, bytes: Bytes) -> Bytes {
        let question = Question::decode(bytes).ok().and_then(|question| question.question);
        let answer = match question {
            None => Err(Unanswered::Status(status::confused())),
            Some(_) if !self.leads() => Err(Unanswered::NotLeader),
            Some(question) => self.answer(question).await,
        };
        let answer = answer.unwrap_or_else(|why| {
            answer::Answer::Failure(match why {
                Unanswered::NotLeader => {
                    let status = status::not_leader();
                    Failure {
                        code: status.code().into(),
                        message: status.message().to_owned(),
                        not_leader: true,
                    }
                }
                Unanswered::Status(status) => Failure {
                    code: status.code().into(),
                    message: status.message().to_owned(),
                    not_leader: false,
                },
            })
        });
        Answer { answer: Some(answer) }.encode_to_vec().into()
    }
}

fn decode(bytes: Bytes) -> Result<answer::Answer, Status> {
    let answer = Answer::decode(bytes).ok().and_then(|answer| answer.answer);
    answer.ok_or_else(status::confused)
}
