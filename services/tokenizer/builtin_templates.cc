#include "services/tokenizer/builtin_templates.h"

#include <algorithm>

#include "common/status/errors.h"
#include "common/strings.h"

namespace caravan::tokenizer {
namespace {

// The instructions stand in every turn's first words, so a message that
// carries their tags is refused, as by the models' authors.
constexpr std::string_view kLlama2Chat = R"({#- Llama-2-Chat -#}
{%- set opening = '' -%}
{%- set turns = messages -%}
{%- if messages and messages[0].role == 'system' -%}
  {%- set opening = '<<SYS>>\n' + messages[0].content + '\n<</SYS>>\n\n' -%}
  {%- set turns = messages[1:] -%}
{%- endif -%}
{%- for message in messages -%}
  {%- for tag in ['[INST]', '[/INST]', '<<SYS>>', '<</SYS>>'] -%}
    {%- if tag in (message.content or '') -%}
      {{- raise_exception('messages must not contain ' + tag + ', a tag of the format') -}}
    {%- endif -%}
  {%- endfor -%}
{%- endfor -%}
{%- for turn in turns -%}
  {%- if turn.role != ('user' if loop.index0 % 2 == 0 else 'assistant') -%}
    {{- raise_exception('after a system message at most, the roles must be user and assistant in turn') -}}
  {%- endif -%}
  {%- if turn.role == 'user' -%}
    {%- set said = (opening if loop.first else '') + (turn.content or '') -%}
    {{- bos_token + '[INST] ' + said | trim + ' [/INST]' -}}
  {%- else -%}
    {{- ' ' + (turn.content or '') | trim + ' ' + eos_token -}}
  {%- endif -%}
{%- endfor -%}
)";

// Each part is a text of its own to the reference encoder and so begins with
// SentencePiece's space; the spaces before the line breaks are those.
constexpr std::string_view kCodeLlama70b = R"({#- Code Llama 70B Instruct -#}
{{- bos_token -}}
{%- set turns = messages -%}
{%- if messages and messages[0].role == 'system' -%}
  {%- set turns = messages[1:] -%}
{%- else -%}
  {{- ' Source: system<step>' -}}
{%- endif -%}
{%- for turn in turns -%}
  {%- if turn.role != ('user' if loop.index0 % 2 == 0 else 'assistant') -%}
    {{- raise_exception('after a system message at most, the roles must be user and assistant in turn') -}}
  {%- endif -%}
{%- endfor -%}
{%- for message in messages -%}
  {{- ' Source: ' + message.role -}}
  {%- if message.destination is defined -%}
    {{- '\nDestination: ' + message.destination -}}
  {%- endif -%}
  {%- set said = (message.content or '') | trim -%}
  {%- if said -%}{{- ' \n\n ' + said -}}{%- endif -%}
  {{- '<step>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{- ' Source: assistant\nDestination: user \n\n ' -}}
{%- endif -%}
)";

constexpr std::string_view kLlama3 = R"({#- Llama-3 Instruct -#}
{{- bos_token -}}
{%- for message in messages -%}
  {{- '<|start_header_id|>' + message.role + '<|end_header_id|>\n\n' -}}
  {{- (message.content or '') | trim + '<|eot_id|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' -}}
{%- endif -%}
)";

// The two halves of 3.1 and 3.2, which differ in the date and in the tools
// that the first knows by name. Variables: custom_tools (instead of tools),
// builtin_tools (3.1), tools_in_user_message (default true), date_string.
constexpr std::string_view kLlama31Head = R"(
{%- macro header(role) -%}
  {{- '<|start_header_id|>' + role + '<|end_header_id|>\n\n' -}}
{%- endmacro -%}
{%- macro call_format() -%}
  {{- 'Respond in the format {"name": function name, "parameters": dictionary of argument name and its value}.' -}}
  {{- 'Do not use variables.\n\n' -}}
{%- endmacro -%}
{%- macro tool_list(list) -%}
  {%- for tool in list -%}{{- tool | tojson(indent=4) + '\n\n' -}}{%- endfor -%}
{%- endmacro -%}
{%- set functions = custom_tools if custom_tools is defined else tools -%}
{%- set with_functions = functions is defined and functions is not none -%}
{%- set in_user_message = tools_in_user_message if tools_in_user_message is defined else true -%}
{%- set system = '' -%}
{%- set turns = messages -%}
{%- if messages and messages[0].role == 'system' -%}
  {%- set system = (messages[0].content or '') | trim -%}
  {%- set turns = messages[1:] -%}
{%- endif -%}
)";

constexpr std::string_view kLlama31Body = R"(
{{- 'Cutting Knowledge Date: December 2023\nToday Date: ' + today + '\n\n' -}}
{%- if with_functions and not in_user_message -%}
  {{- 'You have access to the following functions. To call a function, please respond with JSON for a function call.' -}}
  {{- call_format() + tool_list(functions) -}}
{%- endif -%}
{{- system + '<|eot_id|>' -}}
{%- if with_functions and in_user_message -%}
  {%- if not turns -%}
    {{- raise_exception('tools stand in the first user message, and there is none') -}}
  {%- endif -%}
  {{- header('user') -}}
  {{- 'Given the following functions, please respond with a JSON for a function call ' -}}
  {{- 'with its proper arguments that best answers the given prompt.\n\n' -}}
  {{- call_format() + tool_list(functions) -}}
  {{- (turns[0].content or '') | trim + '<|eot_id|>' -}}
  {%- set turns = turns[1:] -%}
{%- endif -%}
{%- for message in turns -%}
  {%- if message.tool_calls is defined and message.tool_calls -%}
    {%- if message.tool_calls | length != 1 -%}
      {{- raise_exception('this format has one tool call in a message, not ' + message.tool_calls | length | string) -}}
    {%- endif -%}
    {%- set call = message.tool_calls[0].function -%}
    {{- header('assistant') -}}
    {%- if builtins is not none and call.name in builtins -%}
      {{- '<|python_tag|>' + call.name + '.call(' -}}
      {%- for name, value in call.arguments | items -%}
        {{- name + '="' + value + '"' + ('' if loop.last else ', ') -}}
      {%- endfor -%}
      {{- ')' -}}
    {%- else -%}
      {{- '{"name": "' + call.name + '", "parameters": ' + call.arguments | tojson + '}' -}}
    {%- endif -%}
    {{- '<|eom_id|>' if builtins is not none else '<|eot_id|>' -}}
  {%- elif message.role in ['tool', 'ipython'] -%}
    {{- header('ipython') -}}
    {%- if message.content is iterable -%}{{- message.content | tojson -}}
    {%- elif message.content is not none -%}{{- message.content -}}{%- endif -%}
    {{- '<|eot_id|>' -}}
  {%- else -%}
    {{- header(message.role) + (message.content or '') | trim + '<|eot_id|>' -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- header('assistant') -}}{%- endif -%}
)";

constexpr std::string_view kLlama31Opening = R"({#- Llama-3.1, 3.3 -#}
{%- set builtins = builtin_tools if builtin_tools is defined else none -%}
{%- set today = date_string if date_string is defined else '26 Jul 2024' -%}
{{- bos_token + header('system') -}}
{%- if with_functions or builtins is not none -%}{{- 'Environment: ipython\n' -}}{%- endif -%}
{%- if builtins is not none -%}
  {{- 'Tools: ' + builtins | reject('equalto', 'code_interpreter') | join(', ') + '\n\n' -}}
{%- endif -%}
)";

constexpr std::string_view kLlama32Opening = R"({#- Llama-3.2, text -#}
{%- set builtins = none -%}
{%- set today = date_string if date_string is defined else strftime_now('%d %b %Y') -%}
{{- bos_token + header('system') -}}
{%- if with_functions -%}{{- 'Environment: ipython\n' -}}{%- endif -%}
)";

// A message of the role "input" is the context of the instruction before it.
// The format is one exchange; earlier ones are put before it, each ended as
// in training. Alpaca-LoRA has a line break after "### Response:".
constexpr std::string_view kAlpacaGap = "{%- set gap = '' -%}";
constexpr std::string_view kAlpacaLoraGap = "{%- set gap = '\\n' -%}";
constexpr std::string_view kAlpaca = R"({#- Alpaca -#}
{{- bos_token -}}
{%- set turns = messages -%}
{%- set custom = none -%}
{%- if messages and messages[0].role == 'system' -%}
  {%- set custom = messages[0].content or '' -%}
  {%- set turns = messages[1:] -%}
{%- endif -%}
{%- set with_input = turns | selectattr('role', 'equalto', 'input') | list | length > 0 -%}
{%- if custom is not none -%}
  {{- custom -}}
{%- elif with_input -%}
  {{- 'Below is an instruction that describes a task, paired with an input that provides further context. ' -}}
  {{- 'Write a response that appropriately completes the request.' -}}
{%- else -%}
  {{- 'Below is an instruction that describes a task. Write a response that appropriately completes the request.' -}}
{%- endif -%}
{%- for turn in turns -%}
  {%- if turn.role == 'user' -%}
    {{- '\n\n### Instruction:\n' + turn.content -}}
  {%- elif turn.role == 'input' -%}
    {%- if loop.first or loop.previtem.role != 'user' -%}
      {{- raise_exception('an input must follow the user message that is its instruction') -}}
    {%- endif -%}
    {{- '\n\n### Input:\n' + turn.content -}}
  {%- elif turn.role == 'assistant' -%}
    {{- '\n\n### Response:' + gap + turn.content + eos_token -}}
  {%- else -%}
    {{- raise_exception('roles must be user, input and assistant, after at most one system message; got ' + turn.role) -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '\n\n### Response:' + gap -}}{%- endif -%}
)";

constexpr std::string_view kVicunaV0 = R"({#- Vicuna v0 -#}
{{- bos_token -}}
{%- set turns = messages -%}
{%- if messages and messages[0].role == 'system' -%}
  {{- messages[0].content -}}
  {%- set turns = messages[1:] -%}
{%- else -%}
  {{- 'A chat between a curious human and an artificial intelligence assistant. ' -}}
  {{- "The assistant gives helpful, detailed, and polite answers to the human's questions." -}}
{%- endif -%}
{{- '\n' -}}
{%- for turn in turns -%}
  {%- if turn.role not in ['user', 'assistant'] -%}
    {{- raise_exception('roles must be user and assistant, after at most one system message; got ' + turn.role) -}}
  {%- endif -%}
  {{- ('### Human: ' if turn.role == 'user' else '### Assistant: ') + turn.content + '\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '### Assistant:' -}}{%- endif -%}
)";

constexpr std::string_view kVicuna = R"({#- Vicuna v1.1 to v1.5, WizardLM -#}
{{- bos_token -}}
{%- set turns = messages -%}
{%- if messages and messages[0].role == 'system' -%}
  {{- messages[0].content + ' ' -}}
  {%- set turns = messages[1:] -%}
{%- else -%}
  {{- 'A chat between a curious user and an artificial intelligence assistant. ' -}}
  {{- "The assistant gives helpful, detailed, and polite answers to the user's questions. " -}}
{%- endif -%}
{%- for turn in turns -%}
  {%- if turn.role == 'user' -%}
    {{- 'USER: ' + turn.content + ' ' -}}
  {%- elif turn.role == 'assistant' -%}
    {{- 'ASSISTANT: ' + turn.content + eos_token -}}
  {%- else -%}
    {{- raise_exception('roles must be user and assistant, after at most one system message; got ' + turn.role) -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- 'ASSISTANT:' -}}{%- endif -%}
)";

constexpr std::string_view kWizardLm7b = R"({#- WizardLM 7B V1.0 -#}
{%- if messages | length != 1 or messages[0].role != 'user' -%}
  {{- raise_exception('this format is one instruction: send one user message') -}}
{%- endif -%}
{{- bos_token + messages[0].content -}}
{%- if add_generation_prompt -%}{{- '\n\n### Response:' -}}{%- endif -%}
)";

constexpr std::string_view kKoala = R"({#- Koala -#}
{{- bos_token + 'BEGINNING OF CONVERSATION: ' -}}
{%- for turn in messages -%}
  {%- if turn.role == 'user' -%}
    {{- 'USER: ' + turn.content + ' ' -}}
  {%- elif turn.role == 'assistant' -%}
    {{- 'GPT:' + turn.content + eos_token -}}
  {%- else -%}
    {{- raise_exception('Koala knows the roles user and assistant only; got ' + turn.role) -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- 'GPT:' -}}{%- endif -%}
)";

constexpr std::string_view kOpenAssistant = R"({#- OpenAssistant LLaMA -#}
{%- set tags = {'system': '<|system|>', 'user': '<|prompter|>', 'assistant': '<|assistant|>'} -%}
{%- for message in messages -%}
  {%- if message.role not in tags or (message.role == 'system' and not loop.first) -%}
    {{- raise_exception('roles must be user and assistant, after at most one system message; got ' + message.role) -}}
  {%- endif -%}
  {{- tags[message.role] + message.content + eos_token -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}
)";

constexpr std::string_view kChatMl =
    R"({#- ChatML: OpenAssistant Llama-2 and others -#}
{%- for message in messages -%}
  {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}
)";

constexpr std::string_view kBelle = R"({#- BELLE -#}
{{- bos_token -}}
{%- for turn in messages -%}
  {%- if turn.role not in ['user', 'assistant'] -%}
    {{- raise_exception('BELLE knows the roles user and assistant only; got ' + turn.role) -}}
  {%- endif -%}
  {{- ('Human: \n' if turn.role == 'user' else 'Assistant: \n') + turn.content + '\n\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- 'Assistant: \n' -}}{%- endif -%}
)";

constexpr std::string_view kPlain = R"({#- the texts as they are -#}
{{- bos_token + messages | map(attribute='content') | join('\n') -}}
)";

constexpr std::string_view kHeaders[] = {"<|start_header_id|>",
                                         "<|end_header_id|>", "<|eot_id|>"};
constexpr std::string_view kLlama3Ends[] = {"<|eot_id|>", "<|end_of_text|>"};
constexpr std::string_view kLlama31Ends[] = {"<|eot_id|>", "<|eom_id|>",
                                             "<|end_of_text|>"};
constexpr std::string_view kStep[] = {"<step>"};
constexpr std::string_view kPrompterTags[] = {"<|prompter|>", "<|assistant|>"};
constexpr std::string_view kPrompterEnds[] = {"<|prompter|>", "<|assistant|>",
                                              "<|system|>"};
constexpr std::string_view kImTags[] = {"<|im_start|>", "<|im_end|>"};
constexpr std::string_view kImEnd[] = {"<|im_end|>"};
constexpr std::string_view kHash[] = {"###"};

constexpr BuiltinTemplate kBuiltins[] = {
    {"llama-2-chat", {kLlama2Chat}, {}, {}, {}},
    {"llama-3-instruct", {kLlama3}, kHeaders, kLlama3Ends, {}},
    {"llama-3.1-instruct",
     {kLlama31Head, kLlama31Opening, kLlama31Body},
     kHeaders,
     kLlama31Ends,
     {}},
    {"llama-3.2-instruct",
     {kLlama31Head, kLlama32Opening, kLlama31Body},
     kHeaders,
     kLlama31Ends,
     {}},
    {"code-llama-instruct", {kLlama2Chat}, {}, {}, {}},
    {"code-llama-70b-instruct", {kCodeLlama70b}, kStep, kStep, {}},
    {"alpaca", {kAlpacaGap, kAlpaca}, {}, {}, {}},
    {"alpaca-lora", {kAlpacaLoraGap, kAlpaca}, {}, {}, {}},
    {"vicuna-v0", {kVicunaV0}, {}, {}, kHash},
    {"vicuna-v1.1", {kVicuna}, {}, {}, {}},
    {"koala", {kKoala}, {}, {}, {}},
    {"wizardlm", {kVicuna}, {}, {}, {}},
    {"wizardlm-7b", {kWizardLm7b}, {}, {}, {}},
    {"open-assistant", {kOpenAssistant}, kPrompterTags, kPrompterEnds, {}},
    {"chatml", {kChatMl}, kImTags, kImEnd, {}},
    {"belle", {kBelle}, {}, {}, {}},
    {"plain", {kPlain}, {}, {}, {}},
};

bool HasAll(const text::Vocabulary& vocabulary,
            std::span<const std::string_view> names) {
  return std::all_of(names.begin(), names.end(), [&](std::string_view name) {
    return FindToken(vocabulary, name).has_value();
  });
}

bool Ends(const text::Vocabulary& vocabulary, std::string_view name) {
  const std::optional<text::TokenId> id = FindToken(vocabulary, name);
  const std::vector<text::TokenId>& ends = vocabulary.eos_ids;
  return id && std::find(ends.begin(), ends.end(), *id) != ends.end();
}

}  // namespace

std::string BuiltinTemplate::Source() const {
  return StrCat(parts[0], parts[1], parts[2]);
}

std::span<const BuiltinTemplate> BuiltinTemplates() { return kBuiltins; }

const BuiltinTemplate* FindBuiltinTemplate(std::string_view name) {
  const auto* it =
      std::find_if(std::begin(kBuiltins), std::end(kBuiltins),
                   [&](const BuiltinTemplate& b) { return b.name == name; });
  return it == std::end(kBuiltins) ? nullptr : it;
}

std::string BuiltinTemplateNames() {
  std::string names;
  for (const BuiltinTemplate& builtin : kBuiltins) {
    StrAppend(&names, names.empty() ? "" : ", ", builtin.name);
  }
  return names;
}

absl::Status CheckRequiredTokens(const BuiltinTemplate& builtin,
                                 const text::Vocabulary& vocabulary) {
  for (const std::string_view name : builtin.required_tokens) {
    if (FindToken(vocabulary, name)) continue;
    return MakeError(Reason::kTemplateError,
                     StrCat("the format ", builtin.name, " needs the token ",
                            name, ", which the vocabulary does not have"),
                     {{"template", std::string(builtin.name)},
                      {"token", std::string(name)}});
  }
  return absl::OkStatus();
}

const BuiltinTemplate* TemplateOfVocabulary(
    const text::Vocabulary& vocabulary) {
  if (HasAll(vocabulary, kHeaders)) {
    // Base models have the same tokens and do not end with them.
    if (Ends(vocabulary, "<|eom_id|>")) {
      return FindBuiltinTemplate("llama-3.1-instruct");
    }
    if (Ends(vocabulary, "<|eot_id|>")) {
      return FindBuiltinTemplate("llama-3-instruct");
    }
    return nullptr;
  }
  for (const std::string_view name :
       {"open-assistant", "chatml", "code-llama-70b-instruct"}) {
    const BuiltinTemplate* const builtin = FindBuiltinTemplate(name);
    if (HasAll(vocabulary, builtin->required_tokens)) return builtin;
  }
  return nullptr;
}

std::optional<text::TokenId> FindToken(const text::Vocabulary& vocabulary,
                                       std::string_view name) {
  for (int32_t id = 0; id < vocabulary.size(); ++id) {
    const text::TokenEntry& token = vocabulary.tokens[id];
    if (token.bytes == name && token.kind != text::TokenKind::kUnused) {
      return id;
    }
  }
  return std::nullopt;
}

}  // namespace caravan::tokenizer
