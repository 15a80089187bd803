import { type Command, commonOptions, type Option } from './command.ts'
import { exitStatuses } from './exit-status.ts'

/** Longer lists of choices would push every summary to the right; the option's own summary tells them then. */
const maxChoicesWidth = 16

/** An option as help shows it: `--ttl DURATION`, `--format pem|spiffe`, `--banned`. */
export function optionLabel({ name, value, choices = [] }: Option): string {
  const alternatives = choices.join('|')
  const shown = alternatives.length > 0 && alternatives.length <= maxChoicesWidth
  const label = shown ? alternatives : value
  return label === undefined ? `--${name}` : `--${name} ${label}`
}

function optionLines(options: readonly Option[]): readonly string[] {
  const width = Math.max(...options.map((option) => optionLabel(option).length))
  return options.map((option) => {
    const traits = [
      option.required ? 'required' : '',
      option.multiple ? 'may be repeated' : '',
    ].filter(Boolean)
    const suffix = traits.length > 0 ? ` (${traits.join(', ')})` : ''
    return `  ${optionLabel(option).padEnd(width)}  ${option.summary}${suffix}`
  })
}

/** Paragraphs of a command's details; what is indented is an example. */
export const detailLines = (details: string): readonly string[] =>
  details.replace(/^\n+|\s+$/g, '').split('\n')

/** The help of one command. */
export function commandHelp(command: Command): readonly string[] {
  const requiredOptions = command.options
    .filter(({ required }) => required)
    .map((option) => ` ${optionLabel(option)}`)
    .join('')
  const positionals = command.positionals === undefined ? '' : ` ${command.positionals}`
  return [
    `usage: assay ${command.name}${requiredOptions} [option…]${positionals}`,
    '',
    `${command.summary[0]?.toUpperCase()}${command.summary.slice(1)}.`,
    ...(command.details === undefined ? [] : ['', ...detailLines(command.details)]),
    '',
    'options:',
    ...optionLines([...command.options, ...commonOptions]),
  ]
}

/** The list of commands, all or those that begin with `noun`. */
export function overview(commands: readonly Command[], noun?: string): readonly string[] {
  const shown = commands.filter(({ name }) => noun === undefined || name.split(' ')[0] === noun)
  const width = Math.max(...shown.map(({ name }) => name.length))
  return [
    `usage: assay ${noun ?? 'NOUN'} VERB [option…]`,
    '',
    ...(noun === undefined ? ['Operates an Assay server and agent.', ''] : []),
    ...shown.map(({ name, summary }) => `  ${name.padEnd(width)}  ${summary}`),
    '',
    `'assay ${noun ?? 'NOUN'} VERB --help' explains one. Every command takes --json.`,
    ...(noun === undefined
      ? [
          '',
          'Where the daemons are:',
          '  server  --socket-path, else ASSAY_SERVER_SOCKET, else /run/assay/server.sock',
          '  agent   --socket-path, else SPIFFE_ENDPOINT_SOCKET, else /run/assay/agent/api.sock',
          '  agent administration  --admin-socket-path, else ASSAY_AGENT_ADMIN_SOCKET,',
          '                        else /run/assay/agent-admin/admin.sock',
          '',
          'exit status:',
          ...exitStatuses.map(([status, meaning]) => `  ${status}  ${meaning}`),
        ]
      : []),
  ]
}
