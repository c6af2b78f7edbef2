"use strict";
const at = (id) => document.getElementById(id);
const read = (id) => JSON.parse(at(id).textContent);
const element = (tag, className, ...content) => {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...content);
  return made;
};
