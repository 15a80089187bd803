import { type Command, commonOptions, type Option } from './command.ts'

/** Exit statuses of `assay`, as help and the manual list them. */
export const exitStatuses = [
  [0, 'done'],
  [1, 'failed: the message says what and why'],
  [2, 'called wrongly: unknown command or option, bad value'],
  [3, 'not found'],
  [4, 'refused: the caller may not, or no identity is issued to it'],
  [5, 'unreachable: the server or agent does not answer'],
  [6, 'unhealthy: it answered that something is wrong'],
] as const

const optionLabel = ({ name, value }: Option): string =>
  `--${name}${value === undefined ? '' : ` ${value}`}`

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
    ...(command.details === undefined ? [] : ['', ...command.details.trim().split('\n')]),
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
