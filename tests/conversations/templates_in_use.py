"""Chat templates in the manner of those in use: what each demands, and how it renders tools and thinking."""

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

ALTERNATING = (  # no system role, user and assistant take turns, words trimmed: Gemma's manner
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\\n' + m['content'] | trim }}"
    "{{ '<end_of_turn>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)

INSTRUCT = (  # brackets, an end after each answer, a system message within the first user's: Llama 2's manner
    "{% if messages[0].role == 'system' %}{% set system = '<<SYS>>' + messages[0].content + '<</SYS>>' %}"
    "{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}{{ bos_token }}"
    "{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + (system if loop.first else '') + m.content + ' [/INST]' }}"
    "{% elif m.role == 'assistant' %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}"
)

HERMES = (  # tools as JSON in tags, thinking that can be switched off: Qwen's manner
    "{%- if tools %}<|im_start|>system\n{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}<|im_end|>\n{%- endif %}"
    "{%- for m in messages %}{%- if m.role == 'tool' %}<|im_start|>user\n<tool_response>\n{{ m.content }}\n"
    "</tool_response><|im_end|>\n{%- else %}<|im_start|>{{ m.role }}\n"
    "{%- if m.reasoning_content is string %}\n<think>\n{{ m.reasoning_content }}\n</think>\n\n{%- endif %}{{ m.content }}"
    "{%- for call in m.tool_calls or [] %}\n<tool_call>\n{{ {'name': call.function.name, "
    "'arguments': call.function.arguments} | tojson }}\n</tool_call>{%- endfor %}<|im_end|>\n{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}<|im_start|>assistant\n"
    "{%- if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{%- endif %}{%- endif %}"
)

CALLS_WITHOUT_CONTENT = (  # calls where the content is null, arguments as text: DeepSeek's manner
    "{{ bos_token }}{%- for m in messages %}{%- if m['role'] == 'user' %}{{ '<|User|>' + m['content'] }}{%- endif %}"
    "{%- if m['role'] == 'assistant' and m['content'] is none %}{%- for call in m['tool_calls'] %}"
    "{{ '<|call|>' + call['function']['name'] + '\\n' + call['function']['arguments'] + '<|call_end|>' }}{%- endfor %}"
    "{%- endif %}{%- if m['role'] == 'assistant' and m['content'] is not none %}{{ '<|Assistant|>' + m['content'] }}"
    "{%- endif %}{%- if m['role'] == 'tool' %}{{ '<|output|>' + m['content'] + '<|output_end|>' }}{%- endif %}{%- endfor %}"
)

ALWAYS_THINKS = CHATML.replace("assistant\\n' }}{% endif %}", "assistant\\n<think>\\n' }}{% endif %}")
NO_GENERATION_PROMPT = CHATML[: CHATML.index("{% if add_generation_prompt")]
MARKED = (
    "{% for m in messages %}{% if m.role == 'assistant' %}<|im_start|>assistant\n{% generation %}{{ m.content }}<|im_end|>"
    "{% endgeneration %}\n{% else %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
)

ALL = {
    "chatml": CHATML,
    "alternating": ALTERNATING,
    "instruct": INSTRUCT,
    "hermes": HERMES,
    "calls without content": CALLS_WITHOUT_CONTENT,
    "always thinks": ALWAYS_THINKS,
    "marked": MARKED,
}
