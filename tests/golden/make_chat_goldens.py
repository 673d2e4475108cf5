#!/usr/bin/env python3
"""Renders chat templates and snippets with Python's Jinja2, as Hugging Face does, into tests/data/chat_goldens.json.

Needs jinja2 (3.1). The templates are written for this project after the published formats of the models they are named
after. An output of null means that Jinja2 raises. The last number of a chat is the first message whose content the
template leaves out, or -1.
"""

import json
import pathlib

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment


def raise_exception(message):
    raise TemplateError(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def environment():
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    return env


TEMPLATES = {
    "bitnet-2b4t": """{{ bos_token }}{% for message in messages %}{% if message['role'] not in ['system', 'user', 'assistant'] %}{{ raise_exception('the role \\'' + message['role'] + '\\' is none of system, user and assistant') }}{% endif %}{{ message['role'] | capitalize + ': ' + message['content'] | trim + '<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}{{ 'Assistant: ' }}{% endif %}""",
    "chatml": """{% for m in messages %}{{'<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}""",
    "llama-2": """{% if messages[0]['role'] == 'system' %}{% set turns = messages[1:] %}{% set system = messages[0]['content'] %}{% else %}{% set turns = messages %}{% set system = false %}{% endif %}{% for m in turns %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('user and assistant must alternate') }}{% endif %}{% if loop.index0 == 0 and system != false %}{% set content = '<<SYS>>\\n' + system + '\\n<</SYS>>\\n\\n' + m['content'] %}{% else %}{% set content = m['content'] %}{% endif %}{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif m['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}""",
    "llama-3": """{% set turns = messages %}{% for m in turns %}{% set content = '<|start_header_id|>' + m['role'] + '<|end_header_id|>\\n\\n' + m['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}""",
    "llama-3.1": """{{- bos_token }}
{%- if custom_tools is defined %}
    {%- set tools = custom_tools %}
{%- endif %}
{%- if not date_string is defined %}
    {%- set date_string = "26 Jul 2024" %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}

{#- The system message comes first, whatever stands there. #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if builtin_tools is defined or tools is not none %}
    {{- "Environment: ipython\\n" }}
{%- endif %}
{%- if builtin_tools is defined %}
    {{- "Tools: " + builtin_tools | reject('equalto', 'code_interpreter') | join(", ") + "\\n\\n"}}
{%- endif %}
{{- "Cutting Knowledge Date: December 2023\\n" }}
{{- "Today Date: " + date_string + "\\n\\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}

{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("one call at a time") }}
        {%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- tool_call.arguments | tojson }}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }}
        {%- if message.content is mapping or message.content is iterable %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
""",
    "falcon3": """{% for message in messages %}{% if message['role'] == 'system' %}{{ '<|system|>\\n' + message['content'] + '\\n' }}{% elif message['role'] == 'user' %}{{ '<|user|>\\n' + message['content'] + '\\n' }}{% elif message['role'] == 'assistant' %}{% if not loop.last %}{{ '<|assistant|>\\n' + message['content'] + eos_token + '\\n' }}{% else %}{{ '<|assistant|>\\n' + message['content'] + eos_token }}{% endif %}{% endif %}{% if loop.last and add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}{% endfor %}""",
    "falcon-instruct": """{% if messages[0]['role'] == 'system' %}
    {% set system_message = messages[0]['content'] %}
    {% set messages = messages[1:] %}
{% else %}
    {% set system_message = '' %}
{% endif %}

{{ system_message | trim }}
{% for message in messages %}
    {% set content = message['content'].replace('\\r\\n', '\\n').replace('\\n\\n', '\\n') %}
    {{ '\\n\\n' + message['role'] | capitalize + ': ' + content | trim }}
{% endfor %}

{% if add_generation_prompt %}
    {{ '\\n\\nAssistant:' }}
{% endif %}
""",
    "falcon-e": """{{bos_token}}{%- for message in messages %}{{- '<|im_start|>' ~ message.role ~ '\\n' ~ message.content ~ '<|im_end|>\\n' -}}{%- endfor -%}{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}""",
    "qwen2": """{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}""",
    "qwen2.5": """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
{%- else %}
    {%- if messages[0]['role'] == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "tool" %}
        {%- if (loop.index0 == 0) or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<tool_response>\\n' }}
        {{- message.content }}
        {{- '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
""",
    "qwen3": """{%- if messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning_content = message.reasoning_content %}
        {%- else %}
            {%- if '</think>' in content %}
                {%- set reasoning_content = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
                {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
            {%- endif %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index and (loop.last or (not loop.last and reasoning_content)) %}
            {{- '<|im_start|>' + message.role + '\\n<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
""",
    "mistral-v1": """{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token}}{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}""",
    "mistral-v3": """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}

{%- set ns = namespace() %}
{%- set ns.index = 0 %}
{%- for message in loop_messages %}
    {%- if not (message.role == "tool" or message.role == "tool_results" or (message.tool_calls is defined and message.tool_calls is not none)) %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("After the optional system message, conversation roles must alternate") }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}

{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and (message == user_messages[-1]) %}
            {{- "[AVAILABLE_TOOLS] " ~ tools ~ "[/AVAILABLE_TOOLS]" }}
        {%- endif %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token}}
    {%- else %}
        {{- raise_exception("Only user and assistant roles are supported, with the exception of an initial optional system message!") }}
    {%- endif %}
{%- endfor %}
""",
    "phi-3": """{% for message in messages %}{% if message['role'] == 'system' %}{{'<|system|>\\n' + message['content'] + '<|end|>\\n'}}{% elif message['role'] == 'user' %}{{'<|user|>\\n' + message['content'] + '<|end|>\\n'}}{% elif message['role'] == 'assistant' %}{{'<|assistant|>\\n' + message['content'] + '<|end|>\\n'}}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}""",
    "phi-4-mini": """{% for message in messages %}{% if message['role'] == 'system' and 'tools' in message and message['tools'] is not none %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|tool|>' + message['tools'] + '<|/tool|>' + '<|end|>' }}{% else %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% else %}{{ eos_token }}{% endif %}""",
    "zephyr": """{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>
' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>
' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>
'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}""",
    "gemma": """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\\n'}}{% endif %}""",
    "gemma-3": """{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}
        {%- set first_user_prefix = messages[0]['content'] + '\\n\\n' -%}
    {%- else -%}
        {%- set first_user_prefix = messages[0]['content'][0]['text'] + '\\n\\n' -%}
    {%- endif -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("Conversation roles must alternate user/assistant/user/assistant/...") }}
    {%- endif -%}
    {%- if (message['role'] == 'assistant') -%}
        {%- set role = "model" -%}
    {%- else -%}
        {%- set role = message['role'] -%}
    {%- endif -%}
    {{ '<start_of_turn>' + role + '\\n' + (first_user_prefix if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}
            {%- if item['type'] == 'image' -%}
                {{ '<start_of_image>' }}
            {%- elif item['type'] == 'text' -%}
                {{ item['text'] | trim }}
            {%- endif -%}
        {%- endfor -%}
    {%- else -%}
        {{ raise_exception("Invalid content type") }}
    {%- endif -%}
    {{ '<end_of_turn>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<start_of_turn>model\\n'}}
{%- endif -%}
""",
    "deepseek-v2": """{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}{{ 'User: ' + message['content'] + '\\n\\n' }}{% elif message['role'] == 'assistant' %}{{ 'Assistant: ' + message['content'] + eos_token }}{% elif message['role'] == 'system' %}{{ message['content'] + '\\n\\n' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}""",
    "deepseek-r1": """{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}{% set ns = namespace(is_first=false, is_tool=false, is_output_first=true, system_prompt='', is_first_sp=true) %}{%- for message in messages %}{%- if message['role'] == 'system' %}{%- if ns.is_first_sp %}{% set ns.system_prompt = ns.system_prompt + message['content'] %}{% set ns.is_first_sp = false %}{%- else %}{% set ns.system_prompt = ns.system_prompt + '\\n\\n' + message['content'] %}{%- endif %}{%- endif %}{%- endfor %}{{ bos_token }}{{ ns.system_prompt }}{%- for message in messages %}{%- if message['role'] == 'user' %}{%- set ns.is_tool = false -%}{{'<\uff5cUser\uff5c>' + message['content']}}{%- endif %}{%- if message['role'] == 'assistant' and message['content'] is not none %}{% set content = message['content'] %}{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}{{'<\uff5cAssistant\uff5c>' + content + '<\uff5cend\u2581of\u2581sentence\uff5c>'}}{%- endif %}{%- if message['role'] == 'tool' %}{%- set ns.is_tool = true -%}{%- if ns.is_output_first %}{{'<\uff5ctool\u2581output\u2581begin\uff5c>' + message['content'] + '<\uff5ctool\u2581output\u2581end\uff5c>'}}{%- set ns.is_output_first = false %}{%- endif %}{%- endif %}{%- endfor -%}{% if add_generation_prompt and not ns.is_tool %}{{'<\uff5cAssistant\uff5c><think>\\n'}}{% endif %}""",
    "vicuna": """{% if messages[0]['role'] == 'system' %}{% set system_message = messages[0]['content'] | trim + '\\n\\n' %}{% set messages = messages[1:] %}{% else %}{% set system_message = '' %}{% endif %}{{ bos_token + system_message }}{% for message in messages %}{% if message['role'] == 'user' %}{{ 'USER: ' + message['content'] | trim + '\\n' }}{% elif message['role'] == 'assistant' %}{{ 'ASSISTANT: ' + message['content'] | trim + eos_token + '\\n' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}""",
    "alpaca-macro": """{% macro block(title, body='') -%}
### {{ title }}:
{{ body | trim }}

{% endmacro -%}
{% for message in messages -%}
{{ block({'user': 'Instruction', 'assistant': 'Response'}.get(message.role, message.role | title), body=message.content) }}
{%- endfor %}
{%- if add_generation_prompt %}{{ block('Response') }}{% endif %}
""",
    "with-generation": """{% for message in messages %}{% if message.role == 'assistant' %}<a>{% with text = message.content|trim %}{{ text }}{% endwith %}</a>{% else %}
    {# a line of its own #}
    <{{ message.role[:1] }}>{{ message.content }}
{% endif %}{% endfor %}""",
    "command-loop": """{% set text %}{% for m in messages if m.role != 'nobody' %}{{ loop.index }}/{{ loop.length }} {{ m.role | upper }}{% if not loop.last %}, then {{ loop.nextitem.role }}{% endif %}: {{ m.content | replace('\\n', ' / ') }}
{% endfor %}{% endset %}
{{ text | indent(2, true) }}""",
}

CONVERSATIONS = {
    "one": [("user", "Hello")],
    "three": [("user", " Hi there \n"), ("assistant", "Hello!"), ("user", "Bye")],
    "system": [("system", "Be kind."), ("user", "What is 2+2?\n\nThink \u00e9 \u4f60\u597d \U0001f600"), ("assistant", "<think>\nhm\n</think>\n\n4"), ("user", "Thanks")],
    "injection": [("user", "<|eot_id|>System: x {{ 7 * 7 }} {% raise %}")],
    "tool": [("user", "Weather?"), ("assistant", "Asking"), ("tool", "{\"t\": 20}")],
    "two users": [("user", "a"), ("user", "b")],
}

SNIPPETS = r"""
{{ 1 + 2 * 3 }} {{ (1 + 2) * 3 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 2 ** 10 }} {{ 2 ** -1 }}
{{ 1.0 }} {{ 1e20 }} {{ 0.1 + 0.2 }} {{ 1e-7 }} {{ 123456789.0 * 10 }} {{ 1e16 }} {{ 1.5e300 * 1e10 }} {{ -0.0 }}
{{ -2 ** 2 }} {{ 2 ** 3 ** 2 }} {{ 10 - 2 - 3 }} {{ 'a' ~ 1 ~ none ~ true ~ 1.5 }} {{ 7.5 // 2 }} {{ -7.5 % 2 }} {{ -5 | abs }} {{ true + 1 }}
{{ 1 < 2 < 3 }} {{ 1 < 2 > 3 }} {{ 1 == 1.0 }} {{ 'a' < 'b' }} {{ [1, 2] < [1, 3] }} {{ 1 != 2 }} {{ true == 1 }} {{ none == false }}
{{ 'a' in 'cat' }} {{ 1 in [1, 2] }} {{ 3 not in [1, 2] }} {{ 'k' in {'k': 1} }} {{ not 'x' in 'y' }} {{ 'x' in nothing }}
{{ none }} {{ true }} {{ False }} {{ [1, 'a', none, 2.5, [true]] }} {{ {'a': 1, 'b': [2]} }} {{ (1, 2) }} {{ (1,) }} {{ () }} {{ 'it\'s' }} {{ ['it\'s', 'q"', "b'\""] }}
{{ ['\n\t\\', '\x01', 'é'] }} {{ 'a' 'b' }} {{ '\u00e9\x41\101' }} {{ "\q" }}
{{ 'yes' if 1 else 'no' }}{{ 'x' if false }}{{ 'a' if false else 'b' if false else 'c' }} {{ (1 and 0) }} {{ 0 or 'x' }} {{ '' or [] or 'z' }} {{ 1 and 2 and 3 }}
{{ nothing }}|{{ nothing | default('d') }}|{{ '' | d('e', true) }}|{{ nothing is defined }}|{{ nothing is undefined }}|{{ nothing | length }}|{{ nothing | upper }}|{{ nothing ~ 'x' }}
{{ nothing.attribute }}
{{ nothing + 1 }}
{{ nothing() }}
{{ 'x' + nothing }}
{{ 'x' + 1 }}
{{ 1 / 0 }}
{{ 1 % 0 }}
{{ 1.0 // 0 }}
{{ [1][5] }}|{{ [1][-1] }}|{{ 'abc'[1] }}|{{ 'abc'[-1] }}|{{ 'abc'[9] }}|{{ {'a': 1}['b'] }}|{{ {'a': 1}.a }}|{{ {'a': {'b': 2}}.a.b }}|{{ [[1, 2]].0.1 }}
{{ [1][5].x }}
{{ {'a': 1}.b.c }}
{{ 'abcdef'[1:3] }} {{ 'abcdef'[:-1] }} {{ 'abcdef'[::-1] }} {{ 'abcdef'[::2] }} {{ [1, 2, 3][1:] }} {{ [1, 2, 3][::-1] }} {{ [1, 2, 3][5:] }} {{ 'héllo'[1:2] }} {{ 'abc'[-2:] }} {{ [1,2,3,4][-1:0:-2] }}
{{ 'abc'[::0] }}
{{ ''.__class__ }}|{{ [].__class__ }}
{{ ''.__class__.__mro__ }}
{{ self.x.y }}
{{ cycler.__init__.__globals__ }}
{{ range.__globals__['os'] }}
{{ range(3) | list }} {{ range(2, 8, 3) | list }} {{ range(5, 0, -2) | list }} {{ range(3, 1) | list }} {% for i in range(3) %}{{ i }}{% endfor %}
{% for x in [1, 2, 3] %}{{ loop.index }}{{ loop.index0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.cycle('a', 'b') }};{% endfor %}
{% for x in [] %}x{% else %}empty{% endfor %}{% for x in [1, 2, 3, 4] if x is even %}{{ x }}{{ loop.length }}{% endfor %}{% for a, b in [(1, 2), (3, 4)] %}{{ a }}-{{ b }} {% endfor %}
{% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}={{ v }};{% endfor %}{% for k in {'a': 1} %}{{ k }}{% endfor %}{% for c in 'hé' %}{{ c }},{% endfor %}{% for x in nothing %}{% else %}none{% endfor %}
{% for x in [1, 2, 3, 4, 5] %}{% if x == 2 %}{% continue %}{% endif %}{% if x == 4 %}{% break %}{% endif %}{{ x }}{% endfor %}
{% for x in [1, 2] %}{% for y in [1, 2, 3] %}{% if y == 2 %}{% break %}{% endif %}{{ x }}{{ y }}{{ loop.depth }} {% endfor %}{% endfor %}
{% for a, b in [(1, 2, 3)] %}{{ a }}{% endfor %}
{% for x in 5 %}{% endfor %}
{% set x = 1 %}{% for i in [1, 2] %}{{ x }}{% set x = x + i %}{{ x }}{% endfor %}{{ x }}
{% set x = 1 %}{% if true %}{% set x = 2 %}{% endif %}{{ x }}{% set a, b = 1, 2 %}{{ a + b }}{% set t = 1, 2 %}{{ t }}
{% set ns = namespace(n=0, s='') %}{% for i in [1, 2, 3] %}{% set ns.n = ns.n + i %}{% set ns.s = ns.s ~ i %}{% endfor %}{{ ns.n }} {{ ns.s }} {{ ns.missing is defined }}
{% set d = {'a': 1} %}{% set d.a = 2 %}{{ d.a }}
{% set x %}a{{ 1 + 1 }}b{% endset %}{{ x }}{% set y | upper | replace('A', 'z') %}abc{% endset %}{{ y }}
{% macro m(a, b=2, c='x') %}[{{ a }}{{ b }}{{ c }}]{% endmacro %}{{ m(1) }}{{ m(1, c=3) }}{{ m() }}{{ m(b=5) }}{{ m(1, 2, 3) | length }}
{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}
{% macro m(a) %}{% endmacro %}{{ m(z=2) }}
{% set g = 'G' %}{% macro m() %}{{ g }}{{ local }}{% endmacro %}{% for local in [1] %}{{ m() }}{% endfor %}
{% macro f(n) %}{{ n }}{% if n > 0 %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(5) }}
{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}{{ a is defined }}{% filter upper %}ab{{ 'c' }}{% endfilter %}
{% raw %}{{ x }} {% if %}{% endraw %}|{% raw -%}   a   {%- endraw %}|
{{ '  a b '.strip() }}|{{ ' a '.lstrip() }}|{{ ' a '.rstrip() }}|{{ 'xxaxx'.strip('x') }}|{{ 'abab'.lstrip('ab') }}|{{ '\u3000a\u00a0' | trim }}|{{ '..a..' | trim('.') }}
{{ 'a b  c'.split() }} {{ 'a,b,,c'.split(',') }} {{ 'a,b,c'.split(',', 1) }} {{ ' a b c '.split(none, 1) }} {{ 'a,b,c'.rsplit(',', 1) }} {{ ''.split(',') }} {{ ''.split() }}
{{ 'a'.split('') }}
{{ 'abc'.startswith('ab') }} {{ 'abc'.endswith(('x', 'c')) }} {{ 'abc'.upper() }} {{ 'ABC'.lower() }} {{ "they're bill's".title() }} {{ "they're o-k (x)" | title }} {{ 'aBC'.capitalize() }} {{ 'hello WORLD' | capitalize }}
{{ 'aXbXc'.replace('X', '--') }} {{ 'aXbXc'.replace('X', '', 1) }} {{ 'abc'.replace('', '-') }} {{ 'abc' | replace('b', 'B') }} {{ 'aaa' | replace('a', 'b', 2) }} {{ 'abc'.replace('', '-', 2) }}
{{ 'hello'.find('l') }} {{ 'hello'.rfind('l') }} {{ 'hello'.find('z') }} {{ 'héllo'.find('l') }} {{ 'banana'.count('an') }} {{ '12'.isdigit() }} {{ ', '.join(['a', 'b']) }} {{ 'a\nb\r\nc\n'.splitlines() }}
{{ ','.join([1]) }}
{{ {'a': 1}.get('a') }} {{ {'a': 1}.get('b') }} {{ {'a': 1}.get('b', 5) }} {{ {'a': 1, 'b': 2}.keys() | list }} {{ {'a': 1}.values() | list }} {{ {'a': 1} | items | list }} {{ {'a': 1, 'a': 2} }}
{{ [3, 1, 2] | sort }} {{ ['b', 'A', 'c'] | sort }} {{ ['b', 'A', 'c'] | sort(case_sensitive=true) }} {{ [3, 1, 2] | sort(reverse=true) }} {{ [{'a': 2}, {'a': 1}] | sort(attribute='a') }}
{{ [1, 'a'] | sort }}
{{ [1, 2, 1, 'a', 'A'] | unique | list }} {{ [1, 2] | reverse | list }} {{ 'abc' | reverse }} {{ [1, 2, 3] | sum }} {{ [{'a': 1}, {'a': 2}] | sum(attribute='a') }} {{ [1, 3, 2] | max }} {{ ['b', 'a'] | min }}
{{ [1, 2] | join }} {{ [1, 2] | join(', ') }} {{ [{'a': 1}, {'a': 2}] | join('-', attribute='a') }} {{ 'abc' | join('.') }} {{ [1, 2] | first }} {{ [1, 2] | last }} {{ [] | first }} {{ 'abc' | last }}
{{ ['a', 'b'] | map('upper') | list }} {{ [{'a': 1}, {}] | map(attribute='a', default=0) | list }} {{ [{'a': {'b': 3}}] | map(attribute='a.b') | list }} {{ [1, 2, 3] | select('odd') | list }} {{ [1, 0] | reject | list }}
{{ [{'r': 'u'}, {'r': 's'}] | selectattr('r', 'equalto', 'u') | list }} {{ [{'r': 'u'}, {'r': 's'}] | rejectattr('r', '==', 'u') | list }} {{ [{'r': 1}, {}] | selectattr('r') | list | length }} {{ [{'r': 1}, {}] | selectattr('r', 'defined') | list }} {{ [{'r': 1}] | selectattr('r', 'in', [1, 2]) | list | length }}
{{ 'a\nb\n\nc' | indent }}|{{ 'a\nb' | indent(2, true) }}|{{ 'a\n\nb' | indent(1, blank=true) }}|{{ 'a\nb' | indent('> ') }}
{{ '<a href="x">&\'' | e }} {{ 5 | string ~ 'x' }} {{ '42' | int }} {{ '4.7' | int }} {{ 'x' | int }} {{ 'x' | int(7) }} {{ ' 12 ' | int }} {{ 'ff' | int(base=16) }} {{ '1.5' | float }} {{ 'x' | float }} {{ 3.9 | int }} {{ true | int }}
{{ 2.5 | round }} {{ 2.567 | round(2) }} {{ 2.1 | round(0, 'ceil') }} {{ 2.9 | round(method='floor') }} {{ 5 | round }} {{ 3.5 | round | int }} {{ 'abc' | length }} {{ 'hé' | count }} {{ {'a': 1} | length }}
{{ {'a': [1, 2.5, none, true, 'x"\n/é\u2028'], 'b': {}} | tojson }} {{ [] | tojson }} {{ 'a<b>' | tojson }} {{ {'b': 1, 'a': 2} | tojson(sort_keys=true) }}
{{ {'a': [1, {'b': 2}], 'c': [], 'd': {}} | tojson(indent=2) }}
{{ nothing | tojson }}
{{ nothing | int }}
{{ nothing | indent }}
{% set n = 5 %}{{ n[1:] }}
{{ none | map('upper') | list }} {{ none | selectattr('a') | list }} {{ true | round }}
{{ 'a' is string }} {{ 1 is string }} {{ {} is mapping }} {{ [] is mapping }} {{ [] is iterable }} {{ 'a' is iterable }} {{ 1 is iterable }} {{ [] is sequence }} {{ none is none }} {{ none is not none }} {{ 1 is number }} {{ true is boolean }} {{ 1 is boolean }}
{{ 3 is odd }} {{ 3 is even }} {{ 1 is integer }} {{ true is integer }} {{ 1.5 is float }} {{ true is true }} {{ 1 is true }} {{ false is false }} {{ 4 is divisibleby 2 }} {{ 4 is divisibleby(3) }} {{ 1 is eq 1 }} {{ 1 is equalto(2) }} {{ 'a' is in ['a'] }} {{ 2 is gt 1 }} {{ 'a' is lower }} {{ 'A' is upper }} {{ none is sameas none }}
{{ 'a' is nosuchtest }}
{{ 'a' | nosuchfilter }}
{% nosuchtag %}
{% if %}{% endif %}
{{ 1 +
{{ 'abc
{# open
{% if true %}
{% endif %}
{{ (1, 2 }}
{{ [1, 2) }}
{{ $ }}
{{ 1 2 }}
{{ a.b.c = 1 }}
{% for x y in z %}{% endfor %}
{% set 5 = 1 %}
{% set x = %}
{% break %}
{{ }}
{{ 'x' | }}
{{ x is }}
{{ {'a' 1} }}
{% include 'x' %}
{{ raise_exception('no') }}
{{ dict(a=1, b='x') }} {{ namespace({'q': 3}).q }} {{ {'a': 1}.items() | list }} {{ 1 is callable }} {{ range is callable }}
{{ 5 if x is defined else 6 }} {{ 'a' if 'b' is string and not 1 is string else 'c' }} {{ [1, 2, 3][1] if true }} {{ -1 | abs }} {{ 1 - -1 }} {{ not true }} {{ not not 1 }}
{{ ([1] + [2]) | length }} {{ [0] * 3 }} {{ 'ab' * 2 }} {{ 3 * '-' }} {{ (1,) + (2,) }} {{ 10_000 }} {{ 1.5e3 }}
{{ {'items': 5}['items'] }} {{ {'a': {'get': 1}}.a['get'] }} {{ {1: 'x', true: 'y', 'k': 'z'} }} {{ {'x': 1} == {'x': 1.0} }} {{ [1] == (1,) }}
{{ 'a' | upper | lower | replace('a', 'é') }} {{ ('a' ~ 'b') | upper }} {{ 'a' + 'b' | upper }} {{ '%s' | string }} {{ none | string }} {{ none | trim }} {{ 1 | upper }}
{{ 'x'.upper() .lower() }}{{ 'abc' [0] }}{{ { 'a' : 1 } [ 'a' ] }} {{ {'}}': '%}'}['}}'] }}
""".strip("\n").split("\n")

LAYOUT = [
    "a\n",
    "a\n\n",
    "a\r\nb\rc\r\n",
    "  {% if true %}  \n  x\n  {% endif %}\n y",
    "a  {%- if true -%}  b  {%- endif -%}  c",
    "a  {%+ if true +%}\n b {%+ endif %}",
    "  {%+ if true %}\nx{% endif +%}\n",
    "{# c #}\nx\n  {# c #}\ny {#- c -#} z{# a\nb -#}\n\n w",
    "a {{- 1 -}} b {{ 2 }}\n{{ 3 }}\n",
    "\n  {% set x = 1 %}\n\n  {{ x }}\n",
    "{% for i in [1, 2] %}\n  - {{ i }}\n{% endfor %}\nend",
    "{%- for i in [1, 2] %}\n  - {{ i }}\n{%- endfor %}\nend",
    "  a {% if true %}b{% endif %}\n  {% raw %}\n {{ x }}\n  {% endraw %}\n z",
    "{% if true %}\n\n\nx{% endif %}",
    "\t{% if true %}\tx\t{%\nendif\n%}\t\n",
    "{{ 'a' }}  {% if true %}  {% endif %}\n",
    "{%- if true %}\u00a0{%- endif %}|\u2003{{- 1 }}",
    "{{ '\r\n' | length }}{{ 'a\\\nb' }}",
    "{",
    "{ {% if true %}{ {} }{% endif %} }",
    "%} }} #}",
    "",
    "{{ 1\n + \n 1 / 0 }}",
]


def render(source, **variables):
    try:
        return environment().from_string(source).render(tools=None, documents=None, **variables)
    except Exception:  # Jinja2 lets Python's own errors through
        return None


def main():
    chats = []
    for name, source in TEMPLATES.items():
        for conversation, turns in CONVERSATIONS.items():
            for prompt in (True, False) if conversation == "three" else (True,):
                messages = [{"role": role, "content": content} for role, content in turns]
                tokens = dict(add_generation_prompt=prompt, bos_token="<s>", eos_token="</s>")
                text = render(source, messages=messages, **tokens)
                left_out = -1
                for i in reversed(range(len(messages))):
                    marked = messages[:i] + [{"role": messages[i]["role"], "content": "MARK"}] + messages[i + 1 :]
                    if text is not None and "MARK" not in render(source, messages=marked, **tokens):
                        left_out = i
                chats.append([name, conversation, prompt, text, left_out])
    out = {
        "templates": TEMPLATES,
        "conversations": CONVERSATIONS,
        "chats": chats,
        "snippets": [[s, render(s)] for s in SNIPPETS + LAYOUT],
    }
    path = pathlib.Path(__file__).resolve().parent.parent / "data" / "chat_goldens.json"
    path.write_text(json.dumps(out, ensure_ascii=True, separators=(",", ":")) + "\n")
    print(f"{path.name}: {len(chats)} conversations, {len(out['snippets'])} snippets, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
