# The shipped model has no chat template: a folder of it gets one. It tells stories, whatever it is asked.
convert models/storyteller-29m.gguf story hf
cat >story/chat_template.jinja <<'TEMPLATE'
{% for m in messages %}{{ m.role }}: {{ m.content }}
{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}
TEMPLATE
