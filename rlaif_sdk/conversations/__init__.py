"""The door for conversations: messages of every shape in one canonical form, and the views that consumers ask for."""

from rlaif_sdk.conversations.images import Images, image_address, image_block
from rlaif_sdk.conversations.messages import (
    ASSISTANT,
    TOOL,
    USER,
    ToolCall,
    Turn,
    are_chat_messages,
    as_generated,
    chat_messages,
    check_speaker,
    holds_json_of_messages,
    plain_words,
    read,
)
from rlaif_sdk.conversations.prompts import aligned, prompt_problem
from rlaif_sdk.conversations.thinking import after_thinking, split_thinking
from rlaif_sdk.conversations.views import Thinking, View, policy_turns, rendered, shown, view, with_answer, words

__all__ = [
    "ASSISTANT",
    "TOOL",
    "USER",
    "Images",
    "Thinking",
    "ToolCall",
    "Turn",
    "View",
    "after_thinking",
    "aligned",
    "are_chat_messages",
    "as_generated",
    "chat_messages",
    "check_speaker",
    "holds_json_of_messages",
    "image_address",
    "image_block",
    "plain_words",
    "policy_turns",
    "prompt_problem",
    "read",
    "rendered",
    "shown",
    "split_thinking",
    "view",
    "with_answer",
    "words",
]
